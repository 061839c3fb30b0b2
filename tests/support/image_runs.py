"""Parts that the tests of images share: a dataset of a folder, a run around it, the contents of the splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.support import corpora
from toolkit.data.split import Split
from toolkit.datasets.image_folder import ImageFolder
from toolkit.features.image.spec import Image


def folder(path: Path, **fields: Any) -> ImageFolder:
    return ImageFolder(path=str(path), **fields)


def all_pixels(split: Split) -> np.ndarray:
    return split.input.pixels(np.arange(len(split)))


def run_of(dataset: Any, **features: Any) -> Any:
    return corpora.run_of(dataset, features=Image(**features))
