"""Batch: what a loader hands to an engine; a plain dict of numpy arrays with the fields below.

Both frameworks see the same arrays. Padding is zero; the true lengths stand beside every padded field.
"""

from __future__ import annotations

import numpy as np

Batch = dict[str, np.ndarray]

# field -> (axes, dtype). An axis named in a string may have another size in every batch.
FIELDS: dict[str, tuple[tuple[str | int, ...], type]] = {
    "example": (("batch",), np.int64),  # position of the example in its split
    "waveforms": (("batch", "samples"), np.float32),  # full scale is 1.0
    "waveform_lengths": (("batch",), np.int32),  # samples
    "tokens": (("batch", "tokens"), np.int32),
    "token_lengths": (("batch",), np.int32),
    "time_masks": (("batch", "masks", 2), np.int32),  # SpecAugment: (first frame, frames); 0 frames = no mask
    "frequency_masks": (("batch", "masks", 2), np.int32),  # SpecAugment: (first band, bands)
}


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
