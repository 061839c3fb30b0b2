"""The plan's batches as torch tensors, through ``torch.utils.data.DataLoader``."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, MutableSequence
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from toolkit.data.batch import Collate, NoBatch, attempt
from toolkit.errors import STOPPING


class _Batches(Dataset):
    """A data set whose items are whole batches of the plan, or a :class:`NoBatch`.

    Args:
        collator, batches, epoch: see :func:`loader`.
        taken: worker -> number of the batch that it took last, in memory shared by all processes.
    """

    def __init__(self, collator: Collate, batches: list[np.ndarray], epoch: int, taken: MutableSequence[int]) -> None:
        self.collator, self.batches, self.epoch, self.taken = collator, batches, epoch, taken

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor] | NoBatch:
        if worker := get_worker_info():
            self.taken[worker.id] = index
        batch = attempt(self.collator, self.batches[index], self.epoch)
        return batch if isinstance(batch, NoBatch) else {k: torch.from_numpy(v) for k, v in batch.items()}


class _Loader(DataLoader):
    """A ``DataLoader`` that raises :class:`NoBatch` if a batch cannot be made or a worker has ended."""

    dataset: _Batches

    def __iter__(self) -> Any:
        with _signals_blocked():
            batches: Any = super().__iter__()
        try:
            yield from self._checked_batches(batches)
        except BaseException:  # an interrupt, or a caller that stops
            if self.num_workers:
                for worker in batches._workers:  # else torch waits five seconds for each busy worker
                    worker.kill()
                # no worker is left to read torch's event, and a killed one may have held its lock
                batches._workers_done_event = threading.Event()
            raise

    def _checked_batches(self, batches: Any) -> Iterator[Any]:
        while True:
            self._look(batches)
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError:  # torch checks its workers after waiting for five seconds
                self._look(batches)
                raise
            if isinstance(batch, NoBatch):
                raise batch
            yield batch

    def _look(self, batches: Any) -> None:
        """Raise if a worker has ended, for example killed by the kernel when memory ran out."""
        for number, worker in enumerate(getattr(batches, "_workers", ())):
            if worker.exitcode is not None:
                code, index = worker.exitcode, self.dataset.taken[number]
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                why = f"loader worker {number} (process {worker.pid}) {how}"
                raise NoBatch([] if index < 0 else self.dataset.batches[index].tolist(), why)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start workers that ignore signals: Ctrl-C, or a scheduler's SIGTERM, reaches the whole process group, and a run
    whose workers die cannot write its checkpoint.

    torch's handler for a worker's death, which raises wherever the program is, is removed.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else it starts with the first worker and unblocks signals
    before = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # inherited by the workers
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _initialise(worker: int) -> None:
    """Initialise a worker: ignore signals and watch the parent."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """End this worker when its parent is killed; torch checks the parent only after the current batch."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)


def loader(collator: Collate, batches: list[np.ndarray], epoch: int = 0, workers: int = 0) -> DataLoader:
    """Load ``batches`` (positions in the split) in order."""
    context: Any = None
    if workers:
        # A worker forked from the run would inherit its threads, and a spawned one would import torch in every epoch.
        # So workers are forked from a process that does nothing else.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", __name__])
    taken = context.RawArray("q", [-1] * workers) if context else []
    return _Loader(
        _Batches(collator, batches, epoch, taken),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_initialise,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=context,
    )
