"""The contract of a training split; ``data.split.Data`` and ``data.stream.Stream`` implement it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from toolkit.data.batch import Collate, NoBatch
from toolkit.data.exchange import Ranks
from toolkit.errors import RunError, listed
from toolkit.training.progress import Progress
from toolkit.training.spec import Trainer


class Examples(Protocol):
    """The examples of a split or of a pool, by their ids."""

    @property
    def name(self) -> str:
        """Name of the split."""

    @property
    def ids(self) -> list[str]:
        """Ids of the examples, by position."""


class Source(Protocol):
    """Examples that a plan cuts into batches: a whole split, or one pool of a stream."""

    @property
    def split(self) -> Examples:
        """Ids of the examples."""

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

    @property
    def digest(self) -> str:
        """A hash that is equal if the same positions give the same batches."""

    def describe(self) -> str:
        """Describe the amount of data in a few words."""

    def steps(self, trainer: Trainer) -> int:
        """Return the number of optimizer steps of a run."""

    def turn(self, engine: Ranks, at: Progress) -> None:
        """Move ``at`` to the next epoch or pool, if the current one has no batch left.

        Raises:
            DataError: the stream has a bad record. Every process raises it.
        """

    def source(self, engine: Ranks, at: Progress) -> Source:
        """Return the examples that the next batches are made of."""

    def batches_done(self, at: Progress, accumulate: int) -> int:
        """Count the batches since the start of the run."""

    def passed(self, at: Progress) -> float:
        """Count the examples up to a position."""

    def efficiency(self) -> float | None:
        """Return the share of an epoch's batches that is not padding; None if it is not known."""

    def notes(self) -> Iterable[str]:
        """Return lines for the log at the end of training."""

    def close(self) -> None:
        """Stop the prefetch."""


def example_ids(split: Examples, batches: Iterable[Iterable[int]]) -> list[str]:
    """Return the ids of the examples in some batches of the plan."""
    return [split.ids[i] for batch in batches for i in batch]


@contextmanager
def naming_examples(split: Examples) -> Iterator[None]:
    """Turn a loader's message about positions in a split into one line about its examples.

    Raises:
        RunError: a batch could not be loaded.
    """
    try:
        yield
    except NoBatch as error:
        ids = listed(example_ids(split, [error.positions]))
        which = f"the batch: {ids}" if error.positions else "no batch was being loaded"
        raise RunError(f"{split.name}: {error.why}; {which}. The last checkpoint is intact") from error
