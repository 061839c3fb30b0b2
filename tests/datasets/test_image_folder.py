"""A user's images, in a folder for each class."""

from __future__ import annotations

import shutil
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.support.bad_pictures import encoded, good_folder, pixels
from tests.support.corpora import prepare, sizes
from tests.support.image_runs import folder
from toolkit.data.example import Example
from toolkit.data.media.image import decode
from toolkit.datasets.base import carve, labelled_image
from toolkit.datasets.image_folder import ImageFolder
from toolkit.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    good_folder(tmp_path / "data")
    return tmp_path / "data"


def test_a_folder_to_measure_on_needs_no_training_split(data: Path, tmp_path: Path) -> None:
    for name in ("train", "validation"):
        shutil.rmtree(data / name)
    with pytest.raises(DataError, match=r"train: empty split: .*dataset.split=test evaluates a trained run on"):
        prepare(folder(data), tmp_path / "cache")
    assert sizes(prepare(folder(data, split="test"), tmp_path / "cache")) == (0, 0, 2)


def test_folders_with_splits(data: Path, tmp_path: Path) -> None:
    (data / "validation").rename(data / "Val")
    (data / "README.md").write_text("not a class")
    (data / "train/LICENSE").write_text("nor this")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (data / "train/cat" / name).write_bytes(b"\0")
    (data / "train/.cache").mkdir()
    (data / "notes").mkdir()
    deep = data / "train/cat/2024/may"
    deep.mkdir(parents=True)
    (deep / "narrow\N{NARROW NO-BREAK SPACE}blank.PNG").write_bytes(encoded(pixels(60)))
    corpus = prepare(folder(data), tmp_path / "cache")
    assert sizes(corpus) == (9, 2, 2)
    train = corpus.splits["train"]
    assert train.ids[:5] == [
        *(f"train/cat/{i}.png" for i in range(4)),
        "train/cat/2024/may/narrow\N{NARROW NO-BREAK SPACE}blank.PNG",
    ]
    assert train.references == ["cat"] * 5 + ["dog"] * 4
    for i, name in enumerate(train.ids):
        np.testing.assert_array_equal(train.input.pixels(np.array([i]))[0], decoded(data / name))


def decoded(file: Path) -> np.ndarray:
    array = decode(file.read_bytes(), file.name, None, None, 1_000_000)
    assert isinstance(array, np.ndarray)
    return array


def classes_folder(path: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for i in range(count):
            (path / name / f"{i}.png").write_bytes(encoded(pixels(zlib.crc32(f"{name} {i}".encode()), 4, 4)))
    return path


def test_folders_without_splits_are_cut_from_every_class(tmp_path: Path) -> None:
    path = classes_folder(tmp_path / "data", {"bus": 20, "car": 7, "train": 10, "bike": 1})
    dataset = folder(path, validation_fraction=0.1, test_fraction=0.2)
    corpus = prepare(dataset, tmp_path / "cache")
    assert {name: dict(Counter(split.references)) for name, split in corpus.splits.items()} == {
        "train": {"bike": 1, "bus": 14, "car": 5, "train": 7},
        "validation": {"bus": 2, "car": 1, "train": 1},
        "test": {"bus": 4, "car": 1, "train": 2},
    }
    again = prepare(folder(path, test_fraction=0.2), tmp_path / "cache")
    assert again.fingerprint == corpus.fingerprint
    other = prepare(folder(path, test_fraction=0.2, split_seed=1), tmp_path / "cache")
    assert other.splits["test"].ids != corpus.splits["test"].ids


def records(names: list[str]) -> list[Example]:
    return [labelled_image(name, "train", name[0], b"", name) for name in names]


def test_the_cut_depends_on_names_alone() -> None:
    names = [f"{c}/{i}" for c in "ab" for i in range(30)]
    parts = {"test": 0.2, "validation": 0.1}
    there = {p.id: p.split for p in carve(records(names), parts, 0)}
    assert there == {p.id: p.split for p in carve(records(names[::-1]), parts, 0)}
    less = {p.id: p.split for p in carve(records(names[:30]), parts, 0)}
    assert less == {name: there[name] for name in names[:30]}
    assert Counter(there.values()) == {"train": 42, "test": 12, "validation": 6}
    with_test = [*records(names), labelled_image("t", "test", "a", b"", "t")]
    assert Counter(p.split for p in carve(with_test, parts, 0)) == {"train": 54, "validation": 6, "test": 1}
    assert carve(records(names), {"test": 0.0}, 0) == records(names)


def test_the_spec_says_what_is_wrong() -> None:
    assert [field for field, _ in ImageFolder().check()] == ["path"]
    found = ImageFolder(path="a", test_fraction=0.5, validation_fraction=0.5).check()
    assert [field for field, _ in found] == ["test_fraction"]
