"""Pictures: decoding, the corpus and its cache, one's own folders, and what a run does with them."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.bad_pictures import encoded, good_folder, pixels
from tests.support.image_runs import all_pictures, folder, learned, run_of, sizes
from toolkit.data import batch, images
from toolkit.data.corpus import Corpus
from toolkit.data.images import Picture
from toolkit.data.media import image as pictures
from toolkit.datasets.image_folder import ImageFolder
from toolkit.errors import DataError


def decode(content: Any, name: str = "a.png", size: int | None = None, channels: int | None = None) -> np.ndarray:
    return pictures.decode(content, name, size, channels, 1_000_000)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    good_folder(tmp_path / "data")
    return tmp_path / "data"


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("decoded although it is in the cache")

    monkeypatch.setattr(pictures, "decode", refuse)


# ---- decoding

COLOUR = pixels(1, 9, 14)
GREY = COLOUR[..., 0]


@pytest.mark.parametrize(
    "kind, options",
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("WEBP", {"lossless": True}), ("GIF", {})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lossless_formats_give_their_pixels(kind: str, options: dict[str, Any]) -> None:
    few = COLOUR // 128 * 255  # GIF has a palette
    found = decode(encoded(few, kind, **options), "a")
    np.testing.assert_array_equal(found, few)
    assert found.dtype == np.uint8 and found.flags.c_contiguous


def test_grey_stays_grey_and_converts() -> None:
    np.testing.assert_array_equal(decode(encoded(GREY)), GREY[..., None])
    np.testing.assert_array_equal(decode(encoded(GREY), channels=3), np.repeat(GREY[..., None], 3, 2))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert abs(decode(encoded(COLOUR), channels=1)[..., 0] - luma).max() < 1
    bits = Image.fromarray((GREY > 127).astype(np.uint8) * 255).convert("1")
    np.testing.assert_array_equal(decode(encoded(bits))[..., 0], (GREY > 127) * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(kind: str) -> None:
    deep = (GREY.astype(np.uint32) * 257 + 100).clip(max=65535).astype(np.uint16)  # off by less than half a step
    np.testing.assert_array_equal(decode(encoded(deep, kind))[..., 0], GREY)


def test_palette_and_alpha_are_laid_over_white() -> None:
    palette = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "P")
    colours = [(9, 9, 9), (50, 0, 0), (0, 60, 0), (0, 0, 70), (80, 80, 0), (1, 2, 3)]
    palette.putpalette([value for colour in colours for value in colour])
    np.testing.assert_array_equal(decode(encoded(palette)).reshape(6, 3), colours)
    seen = decode(encoded(palette, transparency=4)).reshape(6, 3)
    np.testing.assert_array_equal(seen, [*colours[:4], (255, 255, 255), colours[5]])

    alpha = np.dstack([COLOUR, np.full(GREY.shape, 255, np.uint8)])
    alpha[0, 0, 3], alpha[0, 1, 3] = 0, 128
    seen = decode(encoded(alpha)).astype(int)
    np.testing.assert_array_equal(seen[1:], COLOUR[1:])
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert abs(seen[0, 1] - (COLOUR[0, 1].astype(int) * 128 + 255 * 127) / 255).max() <= 1
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha[..., 3].copy())])
    assert decode(encoded(grey)).shape == (9, 14, 1) and decode(encoded(grey))[0, 0] == 255


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    flat = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    found = decode(encoded(Image.fromarray(flat).convert("CMYK"), kind), "a.jpg")
    assert found.shape == (16, 16, 3) and abs(found.astype(int) - flat).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    # https://www.cipa.jp, Exif 2.32, tag 0x0112: where the 0th row and the 0th column of the file are seen
    upright = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: COLOUR.transpose(1, 0, 2)[:, ::-1],
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: COLOUR.transpose(1, 0, 2)[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(COLOUR, "PNG", exif=exif)), upright[orientation])


def test_the_middle_square_is_resized() -> None:
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:10], wide[:, 10:14] = (100, 0, 0), (0, 200, 0)  # the middle 8 columns
    found = decode(encoded(wide), size=4)
    assert found.shape == (4, 4, 3)
    assert found[0, 0].tolist() == [100, 0, 0] and found[3, 3].tolist() == [0, 200, 0]
    assert decode(encoded(wide), size=16).shape == (16, 16, 3)
    same = pixels(3)
    np.testing.assert_array_equal(decode(encoded(same), size=len(same)), same)
    large = np.asarray(Image.fromarray(pixels(4, 6, 6)).resize((512, 512), Image.Resampling.BICUBIC))
    jpeg = decode(encoded(large, "JPEG", quality=95), "a.jpg", size=16).astype(int)
    assert abs(jpeg - decode(encoded(large), size=16)).mean() < 3


def test_raw_pixels_go_through_the_same_conversions() -> None:
    np.testing.assert_array_equal(decode(GREY), GREY[..., None])
    np.testing.assert_array_equal(decode(COLOUR), COLOUR)
    for raw in (GREY, GREY[..., None], COLOUR):
        for size, channels in ((5, None), (None, 1), (None, 3), (5, 3)):
            file = encoded(raw[..., 0] if raw.shape[-1] == 1 else raw)
            np.testing.assert_array_equal(decode(raw, size=size, channels=channels), decode(file, "a", size, channels))


def test_content_decides_and_not_the_suffix() -> None:
    np.testing.assert_array_equal(decode(encoded(COLOUR), "a.jpg"), COLOUR)


def test_a_cameras_previews_are_ignored() -> None:
    both = Image.fromarray(COLOUR)
    file = encoded(both, "MPO", save_all=True, append_images=[both.rotate(90)])
    assert Image.open(io.BytesIO(file)).n_frames == 2 and decode(file, "a.jpg").shape == COLOUR.shape


# ---- one's own folders


def test_a_folder_to_measure_on_needs_no_training_split(data: Path, tmp_path: Path) -> None:
    for name in ("train", "validation"):
        shutil.rmtree(data / name)
    with pytest.raises(DataError, match=r"train: empty split: .*dataset.split=test measures a trained run on test"):
        images.prepare(folder(data), tmp_path / "cache")
    assert sizes(images.prepare(folder(data, split="test"), tmp_path / "cache")) == (0, 0, 2)


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
    corpus = images.prepare(folder(data), tmp_path / "cache")
    assert sizes(corpus) == (9, 2, 2)
    train = corpus.splits["train"]
    assert train.ids[:5] == [
        *(f"train/cat/{i}.png" for i in range(4)),
        "train/cat/2024/may/narrow\N{NARROW NO-BREAK SPACE}blank.PNG",
    ]
    assert train.texts == ["cat"] * 5 + ["dog"] * 4
    for i, name in enumerate(train.ids):
        np.testing.assert_array_equal(train.pictures(np.array([i]))[0], decode((data / name).read_bytes()))


def classes_folder(path: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for i in range(count):
            (path / name / f"{i}.png").write_bytes(encoded(pixels(zlib.crc32(f"{name} {i}".encode()), 4, 4)))
    return path


def test_folders_without_splits_are_cut_from_every_class(tmp_path: Path) -> None:
    path = classes_folder(tmp_path / "data", {"bus": 20, "car": 7, "train": 10, "bike": 1})
    dataset = folder(path, validation_fraction=0.1, test_fraction=0.2)
    corpus = images.prepare(dataset, tmp_path / "cache")
    assert {name: dict(Counter(split.texts)) for name, split in corpus.splits.items()} == {
        "train": {"bike": 1, "bus": 14, "car": 5, "train": 7},
        "validation": {"bus": 2, "car": 1, "train": 1},
        "test": {"bus": 4, "car": 1, "train": 2},
    }
    again = images.prepare(folder(path, test_fraction=0.2), tmp_path / "cache")
    assert again.fingerprint == corpus.fingerprint
    other = images.prepare(folder(path, test_fraction=0.2, split_seed=1), tmp_path / "cache")
    assert other.splits["test"].ids != corpus.splits["test"].ids


def records(names: list[str]) -> list[Picture]:
    return [Picture(name, "train", name[0], b"", name) for name in names]


def test_the_cut_depends_on_names_alone() -> None:
    names = [f"{c}/{i}" for c in "ab" for i in range(30)]
    parts = {"test": 0.2, "validation": 0.1}
    there = {p.id: p.split for p in images.cut(records(names), parts, 0)}
    assert there == {p.id: p.split for p in images.cut(records(names[::-1]), parts, 0)}
    less = {p.id: p.split for p in images.cut(records(names[:30]), parts, 0)}
    assert less == {name: there[name] for name in names[:30]}
    assert Counter(there.values()) == {"train": 42, "test": 12, "validation": 6}
    with_test = [*records(names), Picture("t", "test", "a", b"", "t")]
    assert Counter(p.split for p in images.cut(with_test, parts, 0)) == {"train": 54, "validation": 6, "test": 1}
    assert images.cut(records(names), {"test": 0.0}, 0) == records(names)


def test_the_spec_says_what_is_wrong() -> None:
    assert [field for field, _ in ImageFolder().check()] == ["path"]
    found = ImageFolder(path="a", test_fraction=0.5, validation_fraction=0.5).check()
    assert [field for field, _ in found] == ["test_fraction"]


# ---- the cache


def test_a_second_run_decodes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = images.prepare(folder(data), tmp_path / "cache")
    no_decoding(monkeypatch)
    second = images.prepare(folder(data), tmp_path / "cache")
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
            return images.prepare(folder(data, on_bad="drop"), tmp_path / str(number))

    assert failing(errno.EIO).report.dropped == {"unreadable": 2}
    assert not images.prepare(folder(data), tmp_path / str(errno.EIO)).report.dropped
    assert failing(errno.EACCES).report.dropped == {"unreadable": 2}
    no_decoding(monkeypatch)  # it is the mode of the file, whose change would be seen
    assert images.prepare(folder(data, on_bad="drop"), tmp_path / str(errno.EACCES)).report.dropped


def test_pictures_in_many_record_batches(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = images.prepare(folder(data), tmp_path / "cache")
    monkeypatch.setattr("toolkit.data.cache.BATCH_BYTES", 3 * 12 * 12 * 3)
    parts = images.prepare(folder(data), tmp_path / "other")
    order = np.array([7, 0, 3, 3, 6, 1])
    for name, split in whole.splits.items():
        np.testing.assert_array_equal(all_pictures(parts.splits[name]), all_pictures(split))
    train = pickle.loads(pickle.dumps(parts.splits["train"]))  # as a loader's worker process gets it
    np.testing.assert_array_equal(train.pictures(order), all_pictures(whole.splits["train"])[order])
    assert train.pictures(np.zeros(0, np.int64)).shape[0] == 0


def test_the_fingerprint_knows_ids_classes_splits_pixels_and_shape(data: Path, tmp_path: Path) -> None:
    def fingerprint(**fields: Any) -> str:
        return images.prepare(folder(data, **fields), tmp_path / "cache").fingerprint

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
    corpus = images.prepare(run.dataset, tmp_path / "cache")
    known = learned(run, corpus, tmp_path / "run")
    assert known.inputs == (10, 10, 3) and known.outputs == 2 and known.tokenizer.classes == ["cat", "dog"]
    train = all_pictures(corpus.splits["train"]) / 255
    np.testing.assert_allclose(known.features["mean"], train.mean((0, 1, 2)))
    corpus = images.usable(run, corpus, known)
    made = images.data(run, corpus.splits["train"], known, True)
    batches = made.plan.epoch(0)
    assert sorted(np.concatenate(batches)) == list(range(8)) and max(map(len, batches)) == 3
    collator = pickle.loads(pickle.dumps(made.collator))
    found = collator(batches[0], 4)
    assert set(found) == set(batch.IMAGES)
    for name, (axes, dtype) in batch.IMAGES.items():
        assert found[name].dtype == dtype and found[name].ndim == len(axes) and len(found[name]) == len(batches[0])
    positions = batches[0]
    np.testing.assert_array_equal(found["example"], positions)
    np.testing.assert_array_equal(found["images"], all_pictures(corpus.splits["train"])[positions])
    assert found["labels"].tolist() == [int(corpus.splits["train"].texts[i] == "dog") for i in positions]
    for i, position in enumerate(positions):
        alone = run.features.draw(12, 12, run.seed, 4, int(position))
        assert found["boxes"][i].tolist() == alone["box"].tolist() and found["flips"][i] == alone["flip"]
        assert found["shares"][i] == alone["share"]
    assert found["partners"].tolist() == [1, 2, 0]
    again = collator(batches[0], 4)
    assert all((again[name] == found[name]).all() for name in found)


def test_an_evaluation_draws_nothing(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data), crop="pad", flip=1.0, mixup=0.2)
    corpus = images.prepare(run.dataset, tmp_path / "cache")
    known = learned(run, corpus, tmp_path / "run")
    found = images.data(run, corpus.splits["test"], known, False).collator(np.arange(2), 0)
    assert found["boxes"].tolist() == [[0, 0, 12, 12]] * 2
    assert not found["flips"].any() and not found["erased"].any() and (found["shares"] == 1).all()


def test_a_worker_is_sent_what_it_needs(data: Path, tmp_path: Path) -> None:
    """The names of the 1.28 million pictures of ImageNet would be 170 MB for each worker in each epoch."""
    run = run_of(folder(data))
    corpus = images.prepare(run.dataset, tmp_path / "cache")
    known = learned(run, corpus, tmp_path / "run")
    sent = pickle.dumps(images.data(run, corpus.splits["train"], known, True).collator)
    assert b"cat" not in sent and b".png" not in sent


def test_another_shape_than_in_training_is_refused(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data))
    known = learned(run, images.prepare(run.dataset, tmp_path / "cache"), tmp_path / "run")
    other = run_of(folder(data, size=8, channels=1), normalize="none")
    corpus = images.prepare(other.dataset, tmp_path / "cache")
    with pytest.raises(DataError, match=r"test/cat/0.png: .*\(8, 8, 1\).*expected \(12, 12, 3\).*dataset.size=N"):
        images.data(other, corpus.splits["test"], known, False)


def test_what_was_learned_may_be_missing_or_damaged(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data))
    learned(run, images.prepare(run.dataset, tmp_path / "cache"), tmp_path / "run")
    for damage in ("", "[]", '{"shape": [1, 2]}', '{"shape": "abc"}'):
        (tmp_path / "run/features/pictures.json").write_text(damage)
        with pytest.raises(DataError, match=r"pictures.json"):
            images.load(run, tmp_path / "run")


def test_pictures_given_to_a_run(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data, size=12))
    known = learned(run, images.prepare(run.dataset, tmp_path / "cache"), tmp_path / "run")
    (tmp_path / "large.jpg").write_bytes(encoded(pixels(80, 50, 90), "JPEG"))
    (tmp_path / "page.png").write_bytes(b"<html>")
    large, page = str(tmp_path / "large.jpg"), str(tmp_path / "page.png")
    given = images.given(run, [large, page, "gone.png", large, str(data)], known)
    split, problems = given.split, given.problems
    assert split.ids == [large, large] and len(split) == 2
    assert [problem.kind for problem in problems] == ["mislabelled", "unreadable", "unreadable"]
    assert [problem.where for problem in problems] == [page, "gone.png", str(data)]
    found = images.data(run, split, known, False).collator(np.arange(2), 0)
    assert found["images"].shape == (2, 12, 12, 3)
    assert images.ANSWER.format(id=split.ids[0], hypothesis="cat") == f"{large}\tcat"
