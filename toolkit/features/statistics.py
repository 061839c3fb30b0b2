"""Mean and variance of a training split in a JSON file, for features that normalize by them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from toolkit.errors import DataError, reading


def save(path: Path, mean: np.ndarray, variance: np.ndarray) -> None:
    """Write ``mean`` and ``variance``, ``(channels,)`` each, into a file; create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"mean": mean.tolist(), "variance": variance.tolist()}), encoding="utf-8")


def load(path: Path, channel: str, channels: int | None = None) -> dict[str, np.ndarray]:
    """Read what :func:`save` wrote: ``mean`` and ``variance``, ``(channels,)`` float64 each.

    Args:
        path: the file.
        channel: name of a channel in messages, such as "mel band".
        channels: number of channels; None accepts any number.

    Raises:
        DataError: the file does not exist, is damaged, or has another number of channels.
    """
    with reading(path, "statistics for features.normalize=training_set"):
        content = json.loads(path.read_text(encoding="utf-8"))
        arrays = {name: np.array(content[name], np.float64) for name in ("mean", "variance")}
    count = channels or arrays["mean"].size
    if not count or any(array.shape != (count,) for array in arrays.values()):
        shapes = [array.shape for array in arrays.values()]
        expected = f"{channels} values, one per {channel}" if channels else f"one value per {channel}"
        raise DataError(f"{path}: found statistics of shapes {shapes}, expected {expected}")
    return arrays
