"""Walks two sets of named arrays in order and names the first that differs."""

from __future__ import annotations

import math
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
        apart = distance(name, a, b)
        if not (np.isfinite(apart) and apart <= allowed):
            return f"{name}: distance {apart:.3g}, allowed {allowed:.3g}"
    extra = [name for name in right if name not in left]
    return f"{extra[0]}: missing on the left" if extra else None


def float64_limit(name: str) -> float:
    return tolerances.FLOAT64


def float32_limit(torch: tuple[Arrays, Arrays], tf: tuple[Arrays, Arrays]) -> Callable[[str], float]:
    """Limit of float32, from the rounding of both frameworks over the whole model; see ``tolerances``.

    Args:
        torch: its float32 and its float64 run of the same case.
        tf: the same.
    """
    limits = {}
    for gradient, least in ((False, tolerances.FLOAT32_FORWARD), (True, tolerances.FLOAT32_GRADIENT)):
        mean = math.sqrt(stray(*torch, gradient) * stray(*tf, gradient))
        limits[gradient] = max(least, tolerances.FLOAT32_MULTIPLE * mean)
    return lambda name: limits[name.startswith("gradient.")]


def stray(narrow: Arrays, wide: Arrays, gradient: bool) -> float:
    """Largest distance between a framework's float32 and float64 runs, of all gradients or of all other arrays."""
    names = [n for n, a in narrow.items() if a.dtype.kind == "f" and n.startswith("gradient.") == gradient]
    return max((distance(name, narrow[name], wide[name]) for name in names), default=0.0)
