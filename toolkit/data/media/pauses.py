"""Pauses: where a long recording is split."""

from __future__ import annotations

import numpy as np

FRAME = 0.02  # seconds over which the energy is measured
PAUSE = 0.3  # seconds; the energy of a place is that of so long a span around it


def ends(samples: np.ndarray, longest: int, sample_rate: int) -> list[int]:
    """Return where the pieces of a recording end, the last one at its end.

    Each piece but the last ends in the quietest span of its second half; the last one is at least a quarter of
    ``longest``.

    Args:
        samples: ``(samples,)``; only the second half of each piece is read.
        longest: the most samples of a piece, at least 1.
        sample_rate: in Hz.
    """
    cuts: list[int] = []
    start = 0
    while len(samples) - start > longest:
        low, high = start + max(1, longest // 2), min(start + longest, len(samples) - longest // 4)
        start = low + _quietest(samples[low:high], sample_rate)
        cuts.append(start)
    return [*cuts, len(samples)]


def _quietest(samples: np.ndarray, sample_rate: int) -> int:
    """Return the middle of the quietest span; of several, the last."""
    size = max(1, round(FRAME * sample_rate))
    frames = len(samples) // size
    if not frames:
        return len(samples)
    energies = np.square(samples[: frames * size].reshape(frames, size), dtype=np.float64).sum(axis=1)
    width = min(frames, round(PAUSE / FRAME))
    spans = np.convolve(energies, np.ones(width), "valid")
    last = len(spans) - 1 - int(np.argmin(spans[::-1]))
    return (2 * last + width) * size // 2
