"""Parts that the workers of the image models and their test share."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.layers import parameters as weights
from toolkit.models.cnn.spec import CNN
from toolkit.models.resnet.spec import ResNet
from toolkit.models.vit.spec import ViT

MODELS = {"cnn": CNN(channels=4), "resnet": ResNet(depth=8, width=4), "vit": ViT(dim=16, layers=2, feed_forward=16)}
SIZE, CLASSES = (12, 8, 3), 5
CHANNELS = 3


def arrays() -> dict[str, np.ndarray]:
    """Inputs of batch norm, with one value a channel and many, and of the models."""
    random = np.random.default_rng(5)
    scale, centre = np.array([3.0, 1.0, 0.003]), np.array([50.0, 0.0, 1.0])  # in the last channel epsilon counts
    return {
        "batch": random.standard_normal((4, 5, 6, CHANNELS)) * scale + centre,
        "alone": random.standard_normal((1, 1, 1, CHANNELS)),
        "weight": random.uniform(0.5, 2, CHANNELS),
        "bias": random.standard_normal(CHANNELS),
        "large": random.standard_normal((2, 37, 40, 3)),
        "images": random.standard_normal((10, 12, 8, 3)).astype(np.float32),
    }


def initial(spec: Any, size: tuple[int, int, int] = SIZE, classes: int = CLASSES) -> dict[str, np.ndarray]:
    return weights.initial(spec.parameters(size, classes), 7)


def labels(images: np.ndarray) -> np.ndarray:
    return np.arange(len(images)) % CLASSES
