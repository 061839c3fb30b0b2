"""Load batches with two workers, busy once the first two are there: ``python -m tests.workers.loading BACKEND``.

A second argument changes one thing:

- ``watch``: a worker does not look after its parent,
- ``look``: the parent does not look after its workers,
- ``bad``: a batch cannot be made,
- ``locked``: a lock of the workers is never given back.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from toolkit.cli import guard
from toolkit.training.split import naming_examples

BATCHES = [np.arange(4 * i, 4 * i + 4) for i in range(6)]
CHANGE = sys.argv[2] if len(sys.argv) > 2 else ""


class Collator:
    """Takes a minute for the third batch and those after it."""

    def __getstate__(self) -> dict[str, str]:
        return {"change": CHANGE}

    def __setstate__(self, state: dict[str, str]) -> None:  # in a worker, before it begins
        if state["change"] == "watch":
            from toolkit.data.loaders import torch

            torch._end_with_the_parent = lambda: None

    def __call__(self, batch: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        if CHANGE == "bad" and 7 in batch:
            raise ValueError("an image of no size")
        time.sleep(0.02 if batch[0] < 8 or CHANGE == "bad" else 60)
        return {"example": batch}


def torch_batches() -> Iterator[Any]:
    from toolkit.data.loaders import torch as loaders

    if CHANGE == "look":
        loaders._Loader._look = lambda self, batches: None  # type: ignore[method-assign]
    yield from loaders.loader(Collator(), BATCHES, 0, 2)


def tf_batches() -> Iterator[Any]:
    from toolkit.data.loaders import tf as loaders

    fields = {"example": (("batch",), np.int64)}
    for batch in loaders.loader(Collator(), BATCHES, fields, 0, 2):
        yield {"example": batch["example"].numpy()}


def load() -> int:
    split = SimpleNamespace(name="train", ids=[f"u{i}" for i in range(24)])
    with naming_examples(split):
        for batch in {"torch": torch_batches, "tf": tf_batches}[sys.argv[1]]():
            print([int(i) for i in batch["example"]], flush=True)
    return 0


def end_without_a_lock() -> int:
    from toolkit.data.loaders import torch as loaders

    batches: Any = iter(loaders.loader(Collator(), BATCHES, 0, 2))
    next(batches)
    batches.gi_frame.f_locals["batches"]._workers_done_event._cond.acquire()
    batches.close()
    print("ended", flush=True)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background would ignore it
    sys.exit(guard.guarded(end_without_a_lock if CHANGE == "locked" else load))
