"""Labels: the order of classes, the file that keeps them, labels that training lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.data.columns.label import FILE, Classes, Label, LabelValues
from toolkit.datasets.image_folder import ImageFolder
from toolkit.errors import DataError

LABEL = Label("label", "target", ImageFolder(path="images"), None)
COMPOSED, DECOMPOSED = "\N{LATIN SMALL LETTER A WITH ACUTE}", "a\N{COMBINING ACUTE ACCENT}"


def learned(names: list[str], folder: Path) -> Classes:
    LABEL.learn([LabelValues(names)], folder)
    return LABEL.load(folder)


@pytest.mark.parametrize("value", [None, float("nan"), " "])
def test_no_value_is_no_class(value: object) -> None:
    assert LABEL.check(value)[1:] == ("no class", "found no class name")
    assert LABEL.check(7) == ("7", "", "")


def test_classes_are_in_numeric_order_then_by_name(tmp_path: Path) -> None:
    long = "1" * 5000  # more digits than Python converts
    classes = learned(["10", "cat", "9", "2", "Dog", "cat", DECOMPOSED, "-1", long], tmp_path)
    assert classes.names == ["2", "9", "10", "-1", long, "Dog", "cat", COMPOSED]
    assert LABEL.size(classes) == 8
    assert classes.id("10") == 2 and classes.id("3") is None
    assert classes.id(DECOMPOSED) == 7


def test_labels_become_ids_and_unknown_ones_are_named(tmp_path: Path) -> None:
    classes = learned(["7", "10", f"caf{COMPOSED}", "dog", "犬"], tmp_path)
    names = ["dog", "7", f"caf{COMPOSED}", f"caf{DECOMPOSED}", "unseen", "DOG"]
    values = LABEL.encode(LabelValues(names), classes)
    assert values.ids is not None and values.ids.dtype == np.int32
    assert values.ids.tolist() == [3, 0, 2, 2, -1, -1]
    flaws = list(LABEL.unfit(values, classes))
    assert [(flaw.position, flaw.kind, flaw.fatal) for flaw in flaws] == [
        (4, "unknown class", False),
        (5, "unknown class", False),
    ]
    assert "'unseen' has no usable example in the training split" in flaws[0].message
    batch = LABEL.batcher(values, classes, None).collate(np.array([3, 0]), None)
    assert batch["labels"].tolist() == [2, 3]


@pytest.mark.parametrize(
    "name, kind", [("cat", ""), ("", "no class"), (" \t", "no class"), ("c\udce9", "bad name"), ("a\tb", "bad name")]
)
def test_a_label_needs_a_name(name: str, kind: str) -> None:
    assert LABEL.check(name)[1] == kind


def test_a_label_is_brought_to_nfc() -> None:
    assert LABEL.check(DECOMPOSED)[0] == COMPOSED


@pytest.mark.parametrize("junk", ["", "{}", "[1]", '{"classes": 1}', '{"classes": [1]}', '{"classes": ["a", "a"]}'])
def test_classes_missing_or_damaged_are_said(junk: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=FILE):
        LABEL.load(tmp_path)
    (tmp_path / FILE).write_text(junk)
    with pytest.raises(DataError, match=FILE):
        LABEL.load(tmp_path)
