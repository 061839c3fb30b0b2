"""Batch: what a loader hands to an engine; a plain dict of numpy arrays, whose fields the columns define.

Both frameworks see the same arrays. Padding is zero; the true lengths stand beside every padded field.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from toolkit.data.plan import rounded

Batch = dict[str, np.ndarray]
# field -> (axes, dtype). An axis named in a string may have another size in every batch.
Fields = dict[str, tuple[tuple[str | int, ...], type]]


class Collate(Protocol):
    """Makes batches of a split."""

    @property
    def fields(self) -> Fields:
        """Names, axes and dtypes of a batch's fields."""
        ...

    def known(self, positions: np.ndarray) -> Batch:
        """The fields of a batch that take none of its content: ``example``, and the lengths that it is padded by."""

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        """A batch.

        Args:
            positions: ``(batch,)`` in the split.
            epoch: which augmentation is drawn by.
            whole: :meth:`known` of the batch that these are some rows of: they are padded as all of it is.
        """


class NoBatch(Exception):
    """A loader made no batch of some examples.

    Args:
        positions: of the examples in their split.
        why: in words.
    """

    def __init__(self, positions: list[int], why: str) -> None:
        super().__init__(positions, why)  # both, or it does not survive the way out of a loader's process
        self.positions, self.why = positions, why


def attempt(collator: Collate, batch: np.ndarray, epoch: int) -> Batch | NoBatch:
    """The batch of these positions, or which of them it fails for; the traceback goes to standard error."""
    try:
        return collator(batch, epoch)
    except Exception as error:
        traceback.print_exc()
        bad = [i for i in batch.tolist() if _fails(collator, i, epoch)]
        return NoBatch(bad or batch.tolist(), f"{type(error).__name__}: {error}")


def _fails(collator: Collate, position: int, epoch: int) -> bool:
    try:
        collator(np.array([position]), epoch)
    except Exception:
        return True
    return False


PLACES = ("partners",)  # fields that say a row of the batch


def rows(batch: dict[str, Any], first: Any, end: Any) -> dict[str, Any]:
    """The part of a batch from one row to before another, padded as before.

    Args:
        batch: numpy arrays, or tensors of either framework.
        first, end: ints, or tensors too. What rows say of others does not count: they may lie in another part.
    """
    return {name: values[first:end] * 0 if name in PLACES else values[first:end] for name, values in batch.items()}


def rows_of(part: Any, parts: int, rows: Any) -> tuple[Any, Any]:
    """Which rows of a batch a device takes: from the first number to before the second.

    The parts are contiguous, and their sizes differ by one at most; with fewer rows than parts some are empty.

    Args:
        part: from 0; an int or a tensor of either framework.
        parts: devices.
        rows: of the batch, as ``part``.
    """
    return part * rows // parts, (part + 1) * rows // parts


PART: Fields = {
    "before": ((), np.int64),  # rows of the whole batch before those of this process
    "share": (
        (),
        np.float64,
    ),  # of its loss; 0: this process has none of its rows, and works on one that counts nowhere
}


@dataclass(frozen=True)
class Part:
    """Makes this process's rows of each batch, and no others; the batch has the fields of :data:`PART` too.

    Args:
        collator: of the whole split.
        rank, ranks: this process, of how many.
        amounts: of the task: what each row counts, of a batch that is :meth:`Collate.known`.
        held: the positions that this process can make: from the first to before the second; None: all.
    """

    collator: Collate
    rank: int
    ranks: int
    amounts: Callable[[Batch], np.ndarray]
    held: tuple[int, int] | None = None

    @property
    def fields(self) -> Fields:
        return self.collator.fields | PART

    def known(self, positions: np.ndarray) -> Batch:
        return self.collator.known(positions)

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        whole = whole or self.collator.known(positions)
        first, end = rows_of(self.rank, self.ranks, len(positions))
        spare = positions[:1]
        if self.held:
            first, end = np.searchsorted(positions, self.held).tolist()
            spare = np.array(self.held[:1])
        amounts = np.asarray(self.amounts(whole), np.float64)
        own = positions[first:end] if end > first else spare
        batch = self.collator(own, epoch, whole)
        return batch | {"before": np.array(first), "share": np.array(amounts[first:end].sum() / amounts.sum())}


@dataclass(frozen=True)
class Static:
    """Pads a batch to widths that follow from the longest of its examples alone: there are few, known beforehand.

    Args:
        collator: of the whole split.
        widths: of each field of lengths, what every example of the split is padded to; it grows with the example's
            length in the plan.
    """

    collator: Collate
    widths: dict[str, np.ndarray]

    @classmethod
    def of(cls, collator: Collate, padded: np.ndarray) -> Static:
        """By a plan's lengths ``(examples,)``, which are rounded."""
        known = collator.known(np.arange(len(padded)))
        fields = {name: values for name, values in known.items() if name != "example"}
        return cls(collator, {name: rounded(_greatest(padded, values)) for name, values in fields.items()})

    @property
    def fields(self) -> Fields:
        return self.collator.fields

    def known(self, positions: np.ndarray) -> Batch:
        return self.collator.known(positions)

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        all_of_it = positions if whole is None else whole["example"]
        return self.collator(positions, epoch, {name: values[all_of_it] for name, values in self.widths.items()})


def _greatest(lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each example the greatest value among those that are no longer: ``(examples,)`` each."""
    order = np.argsort(lengths, kind="stable")
    greatest = np.maximum.accumulate(values[order])
    return greatest[np.searchsorted(lengths[order], lengths, side="right") - 1]


def pad(arrays: list[np.ndarray], dtype: type, width: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stack one-dimensional arrays of different lengths.

    Returns:
        ``(batch, longest)`` padded with zeros, at least to ``width``, and ``(batch,)`` int32 lengths.
    """
    lengths = np.array([len(a) for a in arrays], np.int32)
    out: np.ndarray = np.zeros((len(arrays), int(lengths.max(initial=width))), dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out, lengths


def widths(whole: Batch | None, *names: str) -> list[int]:
    """The longest of these fields of lengths; 0 each where no batch is given."""
    return [int(whole[name].max(initial=0)) if whole else 0 for name in names]
