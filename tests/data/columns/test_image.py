"""Images of a run: cached pixels, what is learned, batches, and images given for prediction."""

from __future__ import annotations

import errno
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.bad_pictures import encoded, good_folder, pixels
from tests.support.corpora import given, learned, no_decoding, prepare, sizes
from tests.support.image_runs import all_pixels, folder, run_of
from toolkit.data.columns.column import columns_of
from toolkit.data.columns.image import Image, ImageValues
from toolkit.data.media import image
from toolkit.data.pipeline import load, usable
from toolkit.data.split import Corpus, batch_fields, batched
from toolkit.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    good_folder(tmp_path / "data")
    return tmp_path / "data"


# ---- the cache


def test_a_second_run_decodes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(folder(data), tmp_path / "cache")
    no_decoding(monkeypatch, image)
    second = prepare(folder(data), tmp_path / "cache")
    assert second.fingerprint == first.fingerprint and sizes(second) == (8, 2, 2)


def test_an_error_of_reading_that_may_pass_is_not_remembered(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(number: int) -> Corpus:
        def read(self: Path) -> bytes:
            if self.name == "2.png":
                raise OSError(number, os.strerror(number), str(self))
            return real(self)

        real = Path.read_bytes
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", read)
            return prepare(folder(data, on_bad="drop"), tmp_path / str(number))

    assert failing(errno.EIO).report.dropped == {"unreadable": 2}
    assert not prepare(folder(data), tmp_path / str(errno.EIO)).report.dropped
    assert failing(errno.EACCES).report.dropped == {"unreadable": 2}
    no_decoding(monkeypatch, image)  # it is the mode of the file, whose change would be seen
    assert prepare(folder(data, on_bad="drop"), tmp_path / str(errno.EACCES)).report.dropped


def test_images_in_many_record_batches(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare(folder(data), tmp_path / "cache")
    monkeypatch.setattr("toolkit.data.cache.BATCH_BYTES", 3 * 12 * 12 * 3)
    parts = prepare(folder(data), tmp_path / "other")
    order = np.array([7, 0, 3, 3, 6, 1])
    for name, split in whole.splits.items():
        np.testing.assert_array_equal(all_pixels(parts.splits[name]), all_pixels(split))
    train = pickle.loads(pickle.dumps(parts.splits["train"]))  # as a loader's worker process gets it
    np.testing.assert_array_equal(train.input.pixels(order), all_pixels(whole.splits["train"])[order])
    assert train.input.pixels(np.zeros(0, np.int64)).shape[0] == 0


def test_the_fingerprint_knows_ids_classes_splits_pixels_and_shape(data: Path, tmp_path: Path) -> None:
    def fingerprint(**fields: Any) -> str:
        return prepare(folder(data, **fields), tmp_path / "cache").fingerprint

    found = [fingerprint(), fingerprint(size=8), fingerprint(channels=1)]
    for old, new in (("train/cat/0.png", "train/cat/x.png"), ("train/dog", "train/wolf"), ("validation", "valid")):
        (data / old).rename(data / new)
        found.append(fingerprint())
    file = data / "train/cat/1.png"
    times = file.stat()
    file.write_bytes(encoded(pixels(1000)))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    found.append(fingerprint())
    assert len(set(found)) == len(found)


# ---- a run


def test_a_run_learns_loads_and_batches(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data), crop="pad", flip=0.5, mixup=0.2, size=10)
    corpus = prepare(run.dataset, tmp_path / "cache")
    known = learned(run, corpus, tmp_path / "run")
    assert known.inputs == (10, 10, 3) and known.outputs == 2 and known.target.names == ["cat", "dog"]
    train = all_pixels(corpus.splits["train"]) / 255
    np.testing.assert_allclose(known.features["mean"], train.mean((0, 1, 2)))
    corpus = usable(run, columns_of(run), corpus, known)
    made = batched(run, columns_of(run), corpus.splits["train"], known, True)
    batches = made.plan.epoch(0)
    assert sorted(np.concatenate(batches)) == list(range(8)) and max(map(len, batches)) == 3
    collator = pickle.loads(pickle.dumps(made.collator))
    found, fields = collator(batches[0], 4), batch_fields(columns_of(run), "training")
    assert set(found) == set(fields)
    for name, (axes, dtype) in fields.items():
        assert found[name].dtype == dtype and found[name].ndim == len(axes) and len(found[name]) == len(batches[0])
    positions = batches[0]
    np.testing.assert_array_equal(found["example"], positions)
    np.testing.assert_array_equal(found["images"], all_pixels(corpus.splits["train"])[positions])
    assert found["labels"].tolist() == [int(corpus.splits["train"].references[i] == "dog") for i in positions]
    for i, position in enumerate(positions):
        alone = run.features.draw_batch(12, 12, run.seed, 4, np.array([position]))
        for name in ("boxes", "flips", "shares"):
            np.testing.assert_array_equal(found[name][i], alone[name][0])
    assert found["partners"].tolist() == [1, 2, 0]
    again = collator(batches[0], 4)
    assert all((again[name] == found[name]).all() for name in found)


def test_an_evaluation_draws_nothing(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data), crop="pad", flip=1.0, mixup=0.2)
    corpus = prepare(run.dataset, tmp_path / "cache")
    known = learned(run, corpus, tmp_path / "run")
    corpus = usable(run, columns_of(run), corpus, known)
    found = batched(run, columns_of(run), corpus.splits["test"], known, False).collator(np.arange(2), 0)
    assert set(found) == set(batch_fields(columns_of(run), "evaluation")) == {"example", "images", "labels"}
    np.testing.assert_array_equal(found["images"], all_pixels(corpus.splits["test"]))


def test_a_worker_is_sent_what_it_needs(data: Path, tmp_path: Path) -> None:
    """The names of the 1.28 million images of ImageNet would be 170 MB for each worker in each epoch."""
    run = run_of(folder(data))
    corpus = prepare(run.dataset, tmp_path / "cache")
    known = learned(run, corpus, tmp_path / "run")
    corpus = usable(run, columns_of(run), corpus, known)
    sent = pickle.dumps(batched(run, columns_of(run), corpus.splits["train"], known, True).collator)
    assert b"cat" not in sent and b".png" not in sent


def test_another_shape_than_in_training_is_refused(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data))
    known = learned(run, prepare(run.dataset, tmp_path / "cache"), tmp_path / "run")
    other = run_of(folder(data, size=8, channels=1), normalize="none")
    corpus = prepare(other.dataset, tmp_path / "cache")
    with pytest.raises(
        DataError,
        match=r"test/cat/0.png: .*\(8, 8, 1\).*expected \(12, 12, 3\).*dataset.size=12 and set dataset.channels=3",
    ):
        usable(other, columns_of(other), corpus, known)


def test_what_was_learned_may_be_missing_or_damaged(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data))
    learned(run, prepare(run.dataset, tmp_path / "cache"), tmp_path / "run")
    for damage in ("", "[]", '{"shape": [1, 2]}', '{"shape": "abc"}'):
        (tmp_path / "run/features/images.json").write_text(damage)
        with pytest.raises(DataError, match=r"images.json"):
            load(columns_of(run), tmp_path / "run")


def test_images_given_to_a_run(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data, size=12))
    known = learned(run, prepare(run.dataset, tmp_path / "cache"), tmp_path / "run")
    (tmp_path / "large.jpg").write_bytes(encoded(pixels(80, 50, 90), "JPEG"))
    (tmp_path / "page.png").write_bytes(b"<html>")
    large, page = str(tmp_path / "large.jpg"), str(tmp_path / "page.png")
    (asked,) = given(run, [large, page, "gone.png", large], known, tmp_path / "inputs")
    split, problems = asked.split, asked.problems
    assert split.ids == [large, large] and len(split) == 2
    assert [problem.kind for problem in problems.values()] == ["mislabelled", "no such file"]
    assert [problem.where for problem in problems.values()] == [page, "gone.png"]
    found = batched(run, columns_of(run), split, known, False).collator(np.arange(2), 0)
    assert found["images"].shape == (2, 12, 12, 3)
    assert Image.answer.format(id=split.ids[0], hypothesis="cat") == f"{large}\tcat"


def test_images_of_several_shapes_are_answered_one_by_one(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data))
    known = learned(run, prepare(run.dataset, tmp_path / "cache"), tmp_path / "run")
    good, other = str(next(data.glob("test/*/*.png"))), str(tmp_path / "other.png")
    Path(other).write_bytes(encoded(pixels(80, 9, 7), "PNG"))
    asked = given(run, [other, good, "gone.png", good], known, tmp_path / "inputs")
    assert [one.split.ids for one in asked] == [[], [good], [], [good]]
    problems = [problem for one in asked for problem in one.problems.values()]
    assert [(problem.where, problem.kind) for problem in problems] == [
        (other, "another shape"),
        ("gone.png", "no such file"),
    ]


def test_images_of_another_shape_than_in_training_are_named(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data, size=12), normalize="given", mean=(0.5,) * 3, std=(0.2,) * 3)
    known = learned(run, prepare(run.dataset, tmp_path / "cache"), tmp_path / "run")
    grey = ImageValues(["digest"], (), np.zeros(1, np.int64), (12, 12, 1))
    found = "found (12, 12, 1) (height, width, channels), expected (12, 12, 3) as in training; set "
    (flaw,) = columns_of(run).input.unfit(grey, known.input)
    assert flaw.fatal and flaw.message == f"{found}dataset.channels=3"
    (flaw,) = columns_of(run).input.unfit(replace(grey, shape=(9, 9, 1)), known.input)
    assert flaw.message.endswith("set dataset.size=12 and set dataset.channels=3")
