"""Parts that the workers of the classification task and its test share."""

from __future__ import annotations

import numpy as np

SMOOTHING = 0.1
CLASSES = 7
ARGUMENTS = ("images", "boxes", "flips", "erased", "partners", "shares")
INPUTS = ("example", "images")  # of a batch for prediction


def arrays() -> dict[str, np.ndarray]:
    """A batch in which images are mixed, and the weights of the stub model."""
    rng = np.random.Generator(np.random.Philox(key=3))
    count = 6
    return {
        "example": np.arange(count),
        "images": rng.integers(0, 256, (count, 4, 5, 1), np.uint8),
        "labels": rng.integers(0, CLASSES, count).astype(np.int32),
        "boxes": rng.integers(0, 9, (count, 4)).astype(np.int32),
        "flips": rng.random(count) < 0.5,
        "erased": rng.integers(0, 9, (count, 4)).astype(np.int32),
        "partners": np.roll(np.arange(count), 1).astype(np.int32),
        "shares": rng.random(count).astype(np.float32),
        "weight": rng.standard_normal((CLASSES, 20)).astype(np.float32),
    }
