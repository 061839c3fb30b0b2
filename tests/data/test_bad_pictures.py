"""Bad pictures are refused with a message, or dropped with a count."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import bad_pictures
from tests.support.bad_pictures import encoded, good_folder, pixels
from tests.support.corpora import both_stages, prepare, sizes
from tests.support.image_runs import all_pixels, folder, run_of
from toolkit.data.split import Corpus
from toolkit.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    good_folder(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {case.name: case for case in bad_pictures.make(tmp_path_factory.mktemp("bad"))}


def usable(path: Path, tmp_path: Path, on_bad: str = "refuse") -> Corpus:
    return both_stages(run_of(folder(path, on_bad=on_bad)), tmp_path)


@pytest.mark.parametrize("name", bad_pictures.CASES)
def test_refused_with_a_message(name: str, cases: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        usable(cases[name].path, tmp_path)
    message = str(caught.value)
    for fragment in cases[name].fragments:
        assert fragment in message, message
    assert caught.value.headline.startswith("1 problem "), message


@pytest.mark.parametrize("name", bad_pictures.CASES)
def test_dropped_with_a_count(name: str, cases: dict[str, Any], tmp_path: Path) -> None:
    if not cases[name].droppable:
        with pytest.raises(DataError):
            usable(cases[name].path, tmp_path, "drop")
        return
    corpus = usable(cases[name].path, tmp_path, "drop")
    assert sum(corpus.report.dropped.values()) == 1
    assert sizes(corpus) == (8, 2, 2)


def test_all_problems_at_once_and_good_ones_stay(tmp_path: Path) -> None:
    count = bad_pictures.make_all_in_one(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert caught.value.headline.startswith(f"{count} problems ")
    assert "dataset.on_bad=drop" in caught.value.problems[-1]
    corpus = prepare(folder(tmp_path / "data", on_bad="drop"), tmp_path / "cache")
    assert sizes(corpus) == (8, 2, 2) and sum(corpus.report.dropped.values()) == count


@pytest.mark.parametrize("place", ["train/cat", "train"])
def test_unreadable_folders_are_named(place: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def denied(path: Any = ".") -> Any:
        if str(path) == str(data / place):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in denied(path)])  # Path.iterdir
    with pytest.raises(DataError, match=f"{place}: unreadable: Permission denied"):
        prepare(folder(data), tmp_path / "cache")


def test_an_unreadable_file_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def denied(self: Path) -> bytes:
        if self.name == "2.png":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(DataError, match=r"train/cat/2.png: unreadable: Permission denied"):
        prepare(folder(data), tmp_path / "cache")


def test_grey_beside_colour_needs_a_choice(data: Path, tmp_path: Path) -> None:
    (data / "test/dog/grey.png").write_bytes(encoded(pixels(50)[..., 0]))
    with pytest.raises(DataError, match=r"has colour, but test/dog/grey.png has grey.*dataset.channels=3 or 1"):
        prepare(folder(data, channels=None), tmp_path / "cache")
    for channels in (1, 3):
        corpus = prepare(folder(data, channels=channels), tmp_path / "cache")
        assert all_pixels(corpus.splits["test"]).shape == (3, 12, 12, channels)


def test_repeated_images_can_be_kept(data: Path, tmp_path: Path) -> None:
    (data / "train/cat/a.png").write_bytes((data / "test/cat/0.png").read_bytes())
    (data / "train/dog/b.png").write_bytes((data / "train/cat/0.png").read_bytes())
    corpus = prepare(folder(data, repeats="keep"), tmp_path / "cache")
    assert sizes(corpus) == (10, 2, 2) and not corpus.report.dropped
    assert sorted(note for note in corpus.report.notes if not note.startswith(" ")) == [
        "examples in two classes: 1 (kept: dataset.repeats=keep)",
        "examples in two splits: 1 (kept: dataset.repeats=keep)",
    ]
    named = [note.split(": ")[0].strip() for note in corpus.report.notes if note.startswith(" ")]
    assert sorted(named) == ["train/cat/a.png", "train/dog/b.png"]


def test_the_first_frame_of_an_animation_is_kept_and_counted(data: Path, tmp_path: Path) -> None:
    first, second = (Image.fromarray(pixels(n) // 128 * 255) for n in (80, 81))
    (data / "train/cat/moves.png").write_bytes(encoded(first, save_all=True, append_images=[second]))
    (data / "train/cat/empty.png").write_bytes(b"")
    note = "train: 1 image has several frames (an animation, or pages): only the first is used"
    for _ in range(2):  # decoded, and from the cache
        corpus = usable(data, tmp_path, "drop")
        train = corpus.splits["train"]
        assert note in corpus.report.notes and corpus.report.dropped == {"empty": 1}
        np.testing.assert_array_equal(all_pixels(train)[train.ids.index("train/cat/moves.png")], np.asarray(first))
    others = train.select([i for i, name in enumerate(train.ids) if name != "train/cat/moves.png"])
    assert not others.input.partial.intersection(others.input.rows.tolist())
