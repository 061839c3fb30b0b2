"""The contract of a training split; ``data.split.Data`` and ``data.stream.Stream`` implement it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from toolkit.data.batch import Collate, NoBatch
from toolkit.data.exchange import Ranks
from toolkit.errors import RunError, listed
from toolkit.training.progress import Progress
from toolkit.training.spec import Trainer


class Source(Protocol):
    """Examples that a plan cuts into batches: a whole split, or one pool of a stream."""

    @property
    def split(self) -> Any:
        """Names and ids of the examples."""

    @property
    def collator(self) -> Collate:
        """Makes a batch from positions in the split."""

    @property
    def held(self) -> tuple[int, int] | None:
        """Range of positions that this process can load; None: all of them."""

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch, as positions in the split."""


class TrainingSplit(Protocol):
    """A training split, in memory or as a stream."""

    def steps(self, trainer: Trainer) -> int:
        """Return the number of optimizer steps of a run."""

    def turn(self, engine: Ranks, at: Progress) -> None:
        """Move ``at`` to the next epoch or pool, if the current one has no batch left.

        Raises:
            DataError: the stream has a bad record. Every process raises it.
        """

    def part(self, engine: Ranks, at: Progress) -> Source:
        """Return the examples that the next batches are made of."""

    def position(self, at: Progress, accumulate: int) -> int:
        """Count the batches since the start of the run."""


def example_ids(split: Any, batches: Iterable[Iterable[int]]) -> list[str]:
    """Return the ids of the examples in some batches of the plan."""
    return [split.ids[i] for batch in batches for i in batch]


@contextmanager
def naming_examples(split: Any) -> Iterator[None]:
    """Turn a loader's message about positions in a split into one line about its examples.

    Raises:
        RunError: a batch could not be loaded.
    """
    try:
        yield
    except NoBatch as error:
        ids = listed(example_ids(split, [error.positions]))
        which = f"the batch at hand: {ids}" if error.positions else "no batch at hand"
        raise RunError(f"{split.name}: {error.why}; {which}. The last checkpoint is whole") from error
