"""Walks two sets of named arrays in order and names the first that differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tests.twins import tolerances

Arrays = Mapping[str, np.ndarray]


def distance(name: str, left: np.ndarray, right: np.ndarray) -> float:
    """Relative distance of two arrays of one shape; infinite where either holds a NaN or an infinity."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return np.inf
    size = np.linalg.norm if name.startswith("gradient.") else lambda x: np.abs(x).max(initial=0.0)
    apart, scale = size((left - right).ravel()), max(size(left.ravel()), size(right.ravel()))
    return float(apart / scale) if apart else 0.0


def first_difference(left: Arrays, right: Arrays, limit: Callable[[str], float]) -> str | None:
    """The first array, in the order of ``left``, that is missing, of another shape or type, or too far.

    Integers must be equal. A NaN never is.

    Args:
        limit: name -> the distance allowed.

    Returns:
        one line that begins with the array's name, or None.
    """
    for name, a in left.items():
        if name not in right:
            return f"{name}: missing on the right"
        b = right[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{name}: {a.dtype}{a.shape} against {b.dtype}{b.shape}"
        allowed = limit(name) if a.dtype.kind == "f" else 0.0
        if not distance(name, a, b) <= allowed:
            return f"{name}: distance {distance(name, a, b):.3g}, allowed {allowed:.3g}"
    extra = [name for name in right if name not in left]
    return f"{extra[0]}: missing on the left" if extra else None


def float64_limit(name: str) -> float:
    return tolerances.FLOAT64


def float32_limit(narrow: Arrays, wide: Arrays) -> Callable[[str], float]:
    """The limit of float32, from one framework's own float32 and float64 runs of the same case."""

    def limit(name: str) -> float:
        figure = tolerances.FLOAT32_FORWARD
        if name == "loss":
            figure = tolerances.FLOAT32_LOSS
        elif name.startswith("gradient."):
            figure = tolerances.FLOAT32_GRADIENT
        return max(figure, tolerances.FLOOR_MULTIPLE * distance(name, narrow[name], wide[name]))

    return limit
