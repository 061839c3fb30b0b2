"""Parts that the workers of the image features and their test share."""

from __future__ import annotations

import numpy as np

from toolkit.features.image.spec import Erase, Image

SEED, EPOCH = 5, 2
GIVEN = {"normalize": "given", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}

# name -> (spec, height, width, channels, batch)
CASES: dict[str, tuple[Image, int, int, int, int]] = {
    "plain": (Image(normalize="none"), 9, 7, 1, 3),
    "learned": (Image(), 9, 7, 3, 3),
    "flip": (Image(flip=0.5, **GIVEN), 6, 9, 3, 8),
    "pad": (Image(crop="pad", padding=3, flip=0.5, **GIVEN), 12, 10, 3, 8),
    "far": (Image(crop="pad", padding=30, normalize="none"), 12, 10, 1, 8),
    "shrink": (Image(size=11, **GIVEN), 37, 29, 3, 4),
    "enlarge": (Image(size=24, flip=0.5, **GIVEN), 9, 13, 3, 4),
    "same size": (Image(size=49, flip=0.5, normalize="none"), 49, 49, 1, 8),
    "pad and shrink": (Image(size=8, crop="pad", padding=5, flip=0.5, normalize="none"), 15, 20, 3, 8),
    "random_resized": (Image(size=16, crop="random_resized", flip=0.5, **GIVEN), 31, 40, 3, 8),
    "random_resized, own size": (Image(crop="random_resized", area=(0.9, 1.0), normalize="none"), 20, 17, 1, 8),
    "large": (Image(size=40, crop="random_resized", **GIVEN), 300, 260, 3, 2),
    "erase": (Image(erase=Erase(0.7), **GIVEN), 14, 18, 3, 16),
    "mixup": (Image(crop="pad", flip=0.5, erase=Erase(0.5), mixup=0.4, **GIVEN), 12, 12, 3, 8),
    "all": (Image(size=12, crop="random_resized", flip=0.5, erase=Erase(0.5), mixup=0.4, **GIVEN), 20, 22, 3, 8),
}
COPIED = ("plain", "learned", "flip", "pad", "far", "same size", "erase", "mixup")
RESIZED = ("shrink", "enlarge", "random_resized", "large")  # also by PyTorch itself
NARROW = ("pad", "random_resized")  # also with a model in bfloat16
FIELDS = ("images", "boxes", "flips", "erased", "partners", "shares")
STATE = {"mean": np.array([0.1, 0.5, 0.7]), "variance": np.array([0.04, 0.09, 0.0])}


def images(name: str) -> np.ndarray:
    _, height, width, channels, count = CASES[name]
    rng = np.random.Generator(np.random.Philox(key=[3, len(name)]))
    return rng.integers(0, 256, (count, height, width, channels), np.uint8)


def batch(name: str) -> dict[str, np.ndarray]:
    given = images(name)
    drawn = CASES[name][0].draw_batch(*given.shape[1:3], SEED, EPOCH, np.arange(100, 100 + len(given)))
    return {"images": given} | drawn
