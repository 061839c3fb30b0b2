"""Batches: plain dicts of numpy arrays that a loader passes to an engine; the columns define the fields.

Both frameworks receive the same arrays. Padding is zero, and every padded field comes with its true lengths.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from toolkit.data.plan import rounded

Batch = dict[str, np.ndarray]
# field -> (axes, dtype). The size of an axis given as a string varies between batches.
Fields = dict[str, tuple[tuple[str | int, ...], type]]


class Collate(Protocol):
    """A callable that makes batches of a split."""

    @property
    def fields(self) -> Fields:
        """Names, axes and dtypes of a batch's fields."""
        ...

    def measure(self, positions: np.ndarray) -> Batch:
        """Return the fields that need no content: ``example``, and the lengths that determine the padding."""

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        """Make a batch.

        Args:
            positions: ``(batch,)`` in the split.
            epoch: keys the augmentation.
            whole: a batch with the fields of :meth:`measure`; pad to their greatest values. They are those of the whole
                batch if these are only some of its rows, and larger ones in :class:`Static`. None: the longest of these
                examples.
        """


class NoBatch(Exception):
    """Error of a loader that cannot make a batch.

    Args:
        positions: of the examples in their split.
        why: the reason, in words.
    """

    def __init__(self, positions: list[int], why: str) -> None:
        super().__init__(positions, why)  # both, or it cannot be unpickled outside the worker process
        self.positions, self.why = positions, why


def attempt(collator: Collate, batch: np.ndarray, epoch: int) -> Batch | NoBatch:
    """Make a batch, or return the positions that fail; the traceback goes to standard error."""
    try:
        return collator(batch, epoch)
    except Exception as error:
        traceback.print_exc()
        failing = [i for i in batch.tolist() if _fails(collator, i, epoch)]
        return NoBatch(failing or batch.tolist(), f"{type(error).__name__}: {error}")


def _fails(collator: Collate, position: int, epoch: int) -> bool:
    try:
        collator(np.array([position]), epoch)
    except Exception:
        return True
    return False


PLACES = ("partners",)  # fields that hold row numbers of the batch


def rows(batch: dict[str, Any], first: Any, end: Any) -> dict[str, Any]:
    """Slice the rows ``first`` to ``end`` (exclusive) of a batch; the padding stays.

    References to other rows become 0, since those rows may be outside the slice.

    Args:
        batch: numpy arrays, or tensors of either framework.
        first, end: ints, or tensors of either framework.
    """
    return {name: values[first:end] * 0 if name in PLACES else values[first:end] for name, values in batch.items()}


def rows_of(part: Any, parts: int, rows: Any) -> tuple[Any, Any]:
    """Return the range of rows of a batch that a device takes: the first one and the end (exclusive).

    The parts are contiguous, and their sizes differ by one at most; with fewer rows than parts some are empty.

    Args:
        part: number of the device, from 0; an int or a tensor of either framework.
        parts: number of devices.
        rows: number of rows of the batch; an int or a tensor, like ``part``.
    """
    return part * rows // parts, (part + 1) * rows // parts


PART: Fields = {
    "before": ((), np.int64),  # rows of the whole batch before those of this process
    # Share of the batch's loss. 0: this process has none of its rows and computes a spare one that does not count.
    "share": ((), np.float64),
}


@dataclass(frozen=True)
class Part:
    """A collator that makes only this process's rows of each batch, and adds the fields of :data:`PART`.

    Args:
        collator: of the whole split.
        rank, ranks: number of this process, and of all processes.
        amounts: weights of the rows in the task's loss, computed from :meth:`Collate.measure`.
        held: range of the positions that this process can make, end exclusive; None: all.
    """

    collator: Collate
    rank: int
    ranks: int
    amounts: Callable[[Batch], np.ndarray]
    held: tuple[int, int] | None = None

    @property
    def fields(self) -> Fields:
        return self.collator.fields | PART

    def measure(self, positions: np.ndarray) -> Batch:
        return self.collator.measure(positions)

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        whole = whole or self.collator.measure(positions)
        first, end = rows_of(self.rank, self.ranks, len(positions))
        spare = positions[:1]
        if self.held:
            first, end = np.searchsorted(positions, self.held).tolist()
            spare = np.array(self.held[:1])
        amounts = np.asarray(self.amounts(whole), np.float64)
        local = positions[first:end] if end > first else spare
        batch = self.collator(local, epoch, whole)
        return batch | {"before": np.array(first), "share": np.array(amounts[first:end].sum() / amounts.sum())}


@dataclass(frozen=True)
class Static:
    """A collator that pads to widths that depend only on the longest example of a batch: few, and known in advance.

    Args:
        collator: of the whole split.
        widths: field of lengths -> ``(examples,)`` padded length of every example of the split, which grows with the
            example's length in the plan.
    """

    collator: Collate
    widths: dict[str, np.ndarray]

    @classmethod
    def of(cls, collator: Collate, padded: np.ndarray) -> Static:
        """Make one from a plan's rounded lengths ``(examples,)``."""
        batch = collator.measure(np.arange(len(padded)))
        fields = {name: values for name, values in batch.items() if name != "example"}
        return cls(collator, {name: rounded(_greatest(padded, values)) for name, values in fields.items()})

    @property
    def fields(self) -> Fields:
        return self.collator.fields

    def measure(self, positions: np.ndarray) -> Batch:
        return self.collator.measure(positions)

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        examples = positions if whole is None else whole["example"]
        return self.collator(positions, epoch, {name: values[examples] for name, values in self.widths.items()})


def _greatest(lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return for each example the greatest value among those that are not longer: ``(examples,)`` each."""
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
    """Return the width to pad to by each of these fields of lengths: the greatest value; 0 each without a batch."""
    return [int(whole[name].max(initial=0)) if whole else 0 for name in names]
