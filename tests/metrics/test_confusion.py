"""The image of the confusion matrix."""

from __future__ import annotations

import io

import numpy as np
import pytest

from toolkit.metrics.confusion import image


def dark(png: bytes) -> np.ndarray:
    """Where an image has the blue of a share of one."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return np.abs(pixels - [8, 48, 107]).sum(-1) < 12  # the dark end of matplotlib's "Blues"


def test_the_picture_has_a_row_for_each_true_class() -> None:
    names = [f"class number {i}" for i in range(12)]
    rows, columns = np.nonzero(dark(image(names, np.diag(np.arange(1, 13)))))
    side = np.ptp(rows) + 1  # of the square of cells, beyond which there is the bar of colours
    inside = columns < columns.min() + side
    assert np.corrcoef(rows[inside], columns[inside])[0, 1] > 0.95
    top, left = rows.min(), columns.min()
    counts = np.zeros((12, 12), np.int64)
    counts[2, 9] = 5  # the third class is always taken for the tenth
    rows, columns = np.nonzero(dark(image(names, counts))[top : top + side, left : left + side])
    assert np.median(rows) * 12 // side == 2 and np.median(columns) * 12 // side == 9


@pytest.mark.parametrize("classes", [1, 2, 31, 250])
def test_any_number_of_classes_and_any_name_can_be_drawn(classes: int, recwarn: pytest.WarningsRecorder) -> None:
    names = [f"{'长' * (i % 3)}$ {i} _{{ \\frac$" + "long " * (i % 13) for i in range(classes)]
    assert len(image(names, np.eye(classes, dtype=np.int64))) > 1000
    assert not len(recwarn)
