"""Made images."""

from collections.abc import Sequence

import numpy as np

from tests.twins.content.base import ROWS, Content, learned_features, random
from toolkit.data.batch import Batch
from toolkit.data.columns.image import ImageState

HEIGHT, WIDTH = 12, 20  # what two strides of 2 leave is odd


def picture(row: int) -> np.ndarray:
    """A made image: patches of colour and some noise."""
    draw = random(row, 4)
    patches = np.kron(draw.integers(0, 200, (4, 5, 3)), np.ones((3, 4, 1), int))
    return (patches + draw.integers(0, 55, (HEIGHT, WIDTH, 3))).astype(np.uint8)


def images(rows: Sequence[int], training: bool) -> Batch:
    """Made images; in training what is cut out of some reaches beyond their edges."""
    made: Batch = {"images": np.stack([picture(row) for row in rows])}
    if training:
        draws, count = [random(row, 3) for row in rows], len(rows)
        drawn = [(d.integers(-4, 5, 2), d.integers(6, 18, 2), d.random() < 0.5, d.integers(0, 5, 4)) for d in draws]
        made |= {
            "boxes": np.stack([np.concatenate(d[:2]) for d in drawn]).astype(np.int32),
            "flips": np.array([d[2] for d in drawn], np.bool_),
            "erased": np.stack([d[3] for d in drawn]).astype(np.int32),
            "partners": ((np.arange(count) + 1) % count).astype(np.int32),
            "shares": np.array([d.random() for d in draws], np.float32),
        }
    return made


CONTENT = Content(
    lambda features, role, rows, training: images(rows, training),
    lambda features, role: ImageState((HEIGHT, WIDTH, 3), learned_features(features, map(picture, ROWS))),
)
