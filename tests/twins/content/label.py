"""Made classes."""

from collections.abc import Sequence

import numpy as np

from tests.twins.content.base import Content, random
from toolkit.data.batch import Batch
from toolkit.data.columns.label import Classes

CLASSES = 7


def labels(rows: Sequence[int]) -> Batch:
    """Made ids of classes."""
    return {"labels": np.array([random(row, 6).integers(CLASSES) for row in rows], np.int32)}


CONTENT = Content(
    lambda features, role, rows, training: labels(rows), lambda features, role: Classes(map(str, range(CLASSES)))
)
