"""Mean and variance of a training split, which features normalise by, in a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from toolkit.errors import DataError, reading


def save(path: Path, mean: np.ndarray, variance: np.ndarray) -> None:
    """Write ``mean`` and ``variance``, ``(channels,)`` each, into a file, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"mean": mean.tolist(), "variance": variance.tolist()}), encoding="utf-8")


def load(path: Path, channel: str, channels: int | None = None) -> dict[str, np.ndarray]:
    """What :func:`save` left: ``mean`` and ``variance``, ``(channels,)`` float64 each.

    Args:
        path: the file.
        channel: what has one value of each.
        channels: how many there are; None: any number.

    Raises:
        DataError: there is no such file, it is damaged, or of another number of channels.
    """
    with reading(path, "statistics for features.normalize=training_set"):
        found = json.loads(path.read_text(encoding="utf-8"))
        made = {name: np.array(found[name], np.float64) for name in ("mean", "variance")}
    count = channels or made["mean"].size
    if not count or any(array.shape != (count,) for array in made.values()):
        shapes = [array.shape for array in made.values()]
        many = f", {channels} of them" if channels else ""
        raise DataError(f"{path}: found statistics of shapes {shapes}, expected one value for each {channel}{many}")
    return made
