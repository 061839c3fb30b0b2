"""``dataset=digits``: 1,797 grey images of handwritten digits, 8 x 8, from the package scikit-learn.

Origin: the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI Machine Learning
Repository), CC BY 4.0, which is in scikit-learn's wheel. Only that file is read; nothing is imported. There is no
official split: 20 % of each class form the test split, 10 % the validation split.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.datasets.base import ImageDataset, check_fractions, labelled
from toolkit.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

FILE = "datasets/data/digits.csv.gz"
NAMES = tuple("0123456789")


@spec
class Digits(ImageDataset):
    """Small handwritten digits."""

    size: int | None = option(8, "height and width in pixels; 8: unchanged", ge=1, le=4096)
    channels: Literal[1, 3] | None = option(1, "1: grey, unchanged; 3: three equal channels")
    test_fraction: float = option(0.2, "fraction of each class that is carved for the test split", gt=0, lt=1)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from check_fractions(self.validation_fraction, self.test_fraction)

    def carved(self) -> dict[str, float]:
        return {"test": self.test_fraction, "validation": self.validation_fraction}

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        file = _file()
        try:
            with gzip.open(file, "rt") as stream:
                table = np.loadtxt(stream, delimiter=",")
            values, labels = table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(int)
        except (OSError, EOFError, ValueError, IndexError) as error:
            raise DataError(f"{file}: cannot be read ({error}); install scikit-learn again") from error
        pixels = np.rint(values * (255 / 16)).astype(np.uint8)
        yield from labelled("train", 0, labels.tolist(), NAMES, lambda i: pixels[i], file)


def _file() -> Path:
    package = importlib.util.find_spec("sklearn")
    folder = package and next(iter(package.submodule_search_locations or ()), None)
    if not folder or not (file := Path(folder) / FILE).is_file():
        raise DataError("dataset=digits needs scikit-learn, which holds the images: pip install scikit-learn")
    return file
