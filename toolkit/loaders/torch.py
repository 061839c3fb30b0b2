"""The plan's batches as torch tensors, through ``torch.utils.data.DataLoader``."""

from __future__ import annotations

import signal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from toolkit.batch import Collate


class _Batches(Dataset):
    """One item is one whole batch of the plan."""

    def __init__(self, collator: Collate, batches: list[np.ndarray], epoch: int) -> None:
        self.collator, self.batches, self.epoch = collator, batches, epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {k: torch.from_numpy(v) for k, v in self.collator(self.batches[index], self.epoch).items()}


def _leave_ctrl_c_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches the whole process group; a worker that died of it would take the parent's checkpoint along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def loader(collator: Collate, batches: list[np.ndarray], epoch: int = 0, workers: int = 0) -> DataLoader:
    """``batches`` (positions in the split) in their order."""
    return DataLoader(
        _Batches(collator, batches, epoch),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_leave_ctrl_c_to_the_parent,
        pin_memory=torch.cuda.is_available(),
        # a forked worker would inherit the threads of the parent
        multiprocessing_context="spawn" if workers else None,
    )
