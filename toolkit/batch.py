"""Batch: what a loader hands to an engine; a plain dict of numpy arrays, with fields by domain.

Both frameworks see the same arrays. Padding is zero; the true lengths stand beside every padded field.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]
Collate = Callable[[np.ndarray, int], Batch]  # (positions in a split, epoch) -> batch


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


# field -> (axes, dtype). An axis named in a string may have another size in every batch.
Fields = dict[str, tuple[tuple[str | int, ...], type]]

SPEECH: Fields = {
    "example": (("batch",), np.int64),  # position of the example in its split
    "waveforms": (("batch", "samples"), np.float32),  # full scale is 1.0
    "waveform_lengths": (("batch",), np.int32),  # samples
    "tokens": (("batch", "tokens"), np.int32),
    "token_lengths": (("batch",), np.int32),
    "time_masks": (("batch", "masks", 2), np.int32),  # SpecAugment: (first frame, frames); 0 frames = no mask
    "frequency_masks": (("batch", "masks", 2), np.int32),  # SpecAugment: (first band, bands)
}

TRANSLATION: Fields = {
    "example": (("batch",), np.int64),
    "source": (("batch", "source"), np.int32),  # token ids
    "source_lengths": (("batch",), np.int32),
    "tokens": (("batch", "tokens"), np.int32),  # of the translation, without its end
    "token_lengths": (("batch",), np.int32),
}
IMAGES: Fields = {
    "example": (("batch",), np.int64),
    "images": (("batch", "height", "width", "channels"), np.uint8),
    "labels": (("batch",), np.int32),
    "boxes": (("batch", 4), np.int32),  # what is cut out: (top, left, height, width), may reach beyond the picture
    "flips": (("batch",), np.bool_),  # left to right
    "erased": (("batch", 4), np.int32),  # of the finished picture: (top, left, height, width); height 0 = nothing
    "partners": (("batch",), np.int32),  # mixup: the place in this batch of the picture that is mixed in
    "shares": (("batch",), np.float32),  # mixup: share of the picture itself, 1 = nothing is mixed in
}

PLACES = ("partners",)  # fields that say a row of the batch


def rows(batch: dict[str, Any], first: Any, end: Any) -> dict[str, Any]:
    """The part of a batch from one row to before another, padded as before.

    Args:
        batch: numpy arrays, or tensors of either framework.
        first, end: ints, or tensors too. What rows say of others does not count: they may lie in another part.
    """
    return {name: values[first:end] * 0 if name in PLACES else values[first:end] for name, values in batch.items()}


def pad(arrays: list[np.ndarray], dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Stack one-dimensional arrays of different lengths.

    Returns:
        ``(batch, longest)`` padded with zeros, and ``(batch,)`` int32 lengths.
    """
    lengths = np.array([len(a) for a in arrays], np.int32)
    out: np.ndarray = np.zeros((len(arrays), int(lengths.max(initial=0))), dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out, lengths
