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

STOPPING = (signal.SIGINT, signal.SIGTERM)


class _Batches(Dataset):
    """One item is one whole batch of the plan, or a :class:`NoBatch`.

    Args:
        collator, batches, epoch: see :func:`loader`.
        taken: in memory that all processes share, by worker: the last batch that it took.
    """

    def __init__(self, collator: Collate, batches: list[np.ndarray], epoch: int, taken: MutableSequence[int]) -> None:
        self.collator, self.batches, self.epoch, self.taken = collator, batches, epoch, taken

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor] | NoBatch:
        if worker := get_worker_info():
            self.taken[worker.id] = index
        found = attempt(self.collator, self.batches[index], self.epoch)
        return found if isinstance(found, NoBatch) else {k: torch.from_numpy(v) for k, v in found.items()}


class _Loader(DataLoader):
    """Raises :class:`NoBatch` for a batch that cannot be made, and for a worker that has ended: see ``_look``."""

    dataset: _Batches

    def __iter__(self) -> Any:
        with _workers_out_of_reach():
            batches: Any = super().__iter__()
        try:
            yield from self._made(batches)
        except BaseException:  # an interrupt, or a caller that wants no more of them
            if self.num_workers:
                for worker in batches._workers:  # or torch waits five seconds for each that is busy
                    worker.kill()
                # nobody is left to hear torch's own, and one that was killed may have held its lock
                batches._workers_done_event = threading.Event()
            raise

    def _made(self, batches: Any) -> Iterator[Any]:
        while True:
            self._look(batches)
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError:  # torch looks after its workers whenever it has waited for five seconds
                self._look(batches)
                raise
            if isinstance(batch, NoBatch):
                raise batch
            yield batch

    def _look(self, batches: Any) -> None:
        """Raise if a worker is dead, such as by the kernel's hand for want of memory."""
        for number, worker in enumerate(getattr(batches, "_workers", ())):
            if worker.exitcode is not None:
                code, index = worker.exitcode, self.dataset.taken[number]
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                why = f"loader worker {number} (process {worker.pid}) {how}"
                raise NoBatch([] if index < 0 else self.dataset.batches[index].tolist(), why)


@contextlib.contextmanager
def _workers_out_of_reach() -> Iterator[None]:
    """Start workers here: Ctrl-C reaches the whole process group, as SIGTERM of a scheduler does, and their death would
    take the checkpoint along.

    torch's own handler for a worker's death, which raises wherever the program happens to be, is taken off.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # or it is started with the first worker, and lets signals in again
    before = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # inherited by what is started
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(worker: int) -> None:
    """What a worker does first."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A parent that was killed cannot end its workers; torch's own look at it waits for the batch in hand."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)


def loader(collator: Collate, batches: list[np.ndarray], epoch: int = 0, workers: int = 0) -> DataLoader:
    """``batches`` (positions in the split) in their order."""
    context: Any = None
    if workers:
        # a worker that is forked from the run would inherit its threads, and one of its own making imports torch for
        # every epoch; so they are forked from a process that has done nothing else
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", __name__])
    taken = context.RawArray("q", [-1] * workers) if context else []
    return _Loader(
        _Batches(collator, batches, epoch, taken),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_begin,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=context,
    )
