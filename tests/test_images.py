"""Pictures: decoding, the corpus and its cache, one's own folders and the named datasets, and what a run does with
them."""

from __future__ import annotations

import errno
import gzip
import importlib.util
import io
import json
import os
import pickle
import shutil
import tarfile
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import bad_pictures
from tests.bad_pictures import encoded, good_folder, pixels
from toolkit import batch, images, pictures
from toolkit.corpus import Corpus
from toolkit.datasets import cifar, digits, fetch, imagenet, mnist
from toolkit.datasets.image_folder import ImageFolder
from toolkit.errors import DataError
from toolkit.features.image.spec import Image as ImageFeatures
from toolkit.images import Picture
from toolkit.tokenizers.labels.spec import Labels, LabelTokenizer


def decode(content: Any, name: str = "a.png", size: int | None = None, channels: int | None = None) -> np.ndarray:
    return pictures.decode(content, name, size, channels, 1_000_000)


def folder(path: Path, **fields: Any) -> ImageFolder:
    return ImageFolder(path=str(path), **fields)


def sizes(corpus: Corpus) -> tuple[int, ...]:
    return tuple(len(split) for split in corpus.splits.values())


def all_pictures(split: Any) -> np.ndarray:
    return split.pictures(np.arange(len(split)))


def run_of(dataset: Any, **features: Any) -> Any:
    trainer = SimpleNamespace(batch_budget=None, batch_examples=3)
    return SimpleNamespace(
        dataset=dataset, tokenizer=Labels(), features=ImageFeatures(**features), trainer=trainer, seed=5
    )


def learned(run: Any, corpus: Corpus, path: Path) -> Any:
    for name in ("tokenizer", "features"):
        (path / name).mkdir(parents=True)
    images.learn(run, corpus.splits["train"], path)
    return images.load(run, path)


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


# ---- bad pictures


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {case.name: case for case in bad_pictures.make(tmp_path_factory.mktemp("bad"))}


def both_stages(path: Path, tmp_path: Path, on_bad: str = "refuse") -> Corpus:
    run = run_of(folder(path, on_bad=on_bad))
    corpus = images.prepare(run.dataset, tmp_path / "cache")
    return images.usable(run, corpus, learned(run, corpus, tmp_path / on_bad))


@pytest.mark.parametrize("name", bad_pictures.CASES)
def test_refused_with_a_message(name: str, cases: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        both_stages(cases[name].path, tmp_path)
    message = str(caught.value)
    for fragment in cases[name].fragments:
        assert fragment in message, message
    assert caught.value.headline.startswith("1 problem "), message


@pytest.mark.parametrize("name", bad_pictures.CASES)
def test_dropped_with_a_count(name: str, cases: dict[str, Any], tmp_path: Path) -> None:
    if not cases[name].droppable:
        with pytest.raises(DataError):
            both_stages(cases[name].path, tmp_path, "drop")
        return
    corpus = both_stages(cases[name].path, tmp_path, "drop")
    assert sum(corpus.report.dropped.values()) == 1
    assert sizes(corpus) == (8, 2, 2)


def test_all_problems_at_once_and_good_ones_stay(tmp_path: Path) -> None:
    count = bad_pictures.make_all_in_one(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        images.prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert caught.value.headline.startswith(f"{count} problems ")
    assert "dataset.on_bad=drop" in caught.value.problems[-1]
    corpus = images.prepare(folder(tmp_path / "data", on_bad="drop"), tmp_path / "cache")
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
        images.prepare(folder(data), tmp_path / "cache")


def test_an_unreadable_file_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def denied(self: Path) -> bytes:
        if self.name == "2.png":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(DataError, match=r"train/cat/2.png: unreadable: Permission denied"):
        images.prepare(folder(data), tmp_path / "cache")


def test_grey_beside_colour_needs_a_choice(data: Path, tmp_path: Path) -> None:
    (data / "test/dog/grey.png").write_bytes(encoded(pixels(50)[..., 0]))
    with pytest.raises(DataError, match=r"has colour, but test/dog/grey.png has grey.*dataset.channels=3 or 1"):
        images.prepare(folder(data, channels=None), tmp_path / "cache")
    for channels in (1, 3):
        corpus = images.prepare(folder(data, channels=channels), tmp_path / "cache")
        assert all_pictures(corpus.splits["test"]).shape == (3, 12, 12, channels)


def test_repeated_pictures_can_be_kept(data: Path, tmp_path: Path) -> None:
    (data / "train/cat/a.png").write_bytes((data / "test/cat/0.png").read_bytes())
    (data / "train/dog/b.png").write_bytes((data / "train/cat/0.png").read_bytes())
    corpus = images.prepare(folder(data, repeats="keep"), tmp_path / "cache")
    assert sizes(corpus) == (10, 2, 2) and not corpus.report.dropped
    assert sorted(corpus.report.notes) == [
        "pictures in two classes: 1 (kept: dataset.repeats=keep)",
        "pictures in two splits: 1 (kept: dataset.repeats=keep)",
    ]


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
    monkeypatch.setattr("toolkit.array_cache.BATCH_BYTES", 3 * 12 * 12 * 3)
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


# ---- the named datasets


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def idx_files(path: Path, packed: bool = True) -> dict[str, np.ndarray]:
    """Four files in the format of MNIST: 30 pictures to train, 10 to test, every class alike."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": np.arange(30, dtype=np.uint8) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(10, dtype=np.uint8),
    }
    for name, array in arrays.items():
        data = idx(array)
        (path / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)
    return arrays


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_files(packed: bool, tmp_path: Path) -> None:
    arrays = idx_files(tmp_path / "data", packed)
    corpus = images.prepare(mnist.MNIST(path=str(tmp_path / "data")), tmp_path / "cache")
    assert sizes(corpus) == (20, 10, 10)  # one of the three of each class to validate
    for split in ("train", "validation"):
        here = [int(name.split("/")[1]) for name in corpus.splits[split].ids]
        wanted = arrays["train-images-idx3-ubyte"][here]
        np.testing.assert_array_equal(all_pictures(corpus.splits[split])[..., 0], wanted)
        assert corpus.splits[split].texts == [str(n) for n in arrays["train-labels-idx1-ubyte"][here]]
    assert corpus.splits["test"].origins[3] == f"t10k-images-idx3-ubyte{'.gz' * packed}, row 3"


def _mnist_damage(path: Path, damage: str) -> None:
    images_file, labels = path / "train-images-idx3-ubyte.gz", path / "train-labels-idx1-ubyte.gz"
    if damage == "missing":
        labels.unlink()
    elif damage == "truncated":
        images_file.write_bytes(images_file.read_bytes()[:-2000])
    elif damage == "short":
        images_file.write_bytes(gzip.compress(gzip.decompress(images_file.read_bytes())[:-1]))
    elif damage == "fewer":
        labels.write_bytes(gzip.compress(idx(np.zeros(29, np.uint8))))
    elif damage == "swapped":
        images_file.write_bytes(labels.read_bytes())
    elif damage == "no gzip":
        images_file.write_bytes(b"<html>")
    elif damage == "bomb":
        images_file.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"\x7f\xff\xff\xff" * 3))
    elif damage == "label":
        labels.write_bytes(gzip.compress(idx(np.full(30, 10, np.uint8))))


@pytest.mark.parametrize(
    "damage, said",
    [
        ("missing", "found no train-labels-idx1-ubyte, with .gz or without"),
        ("truncated", "train-images-idx3-ubyte.gz: damaged or truncated"),
        ("short", "promises 23,520 values, only 23,519 are there"),
        ("fewer", "30 pictures, but 29 classes in train-labels-idx1-ubyte.gz"),
        ("swapped", "begins with bytes 00 00 08 01, expected 00 00 08 03"),
        ("no gzip", "train-images-idx3-ubyte.gz: cannot be read"),
        ("bomb", "promises 2147483647 x 2147483647 x 2147483647 values"),
        ("label", "train-images-idx3-ubyte.gz, row 0: bad label: found class 10, expected 0 to 9"),
    ],
)
def test_bad_mnist_files(damage: str, said: str, tmp_path: Path) -> None:
    idx_files(tmp_path / "data")
    _mnist_damage(tmp_path / "data", damage)
    with pytest.raises(DataError) as caught:
        images.prepare(mnist.FashionMNIST(path=str(tmp_path / "data")), tmp_path / "cache")
    assert said in str(caught.value)


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for Debian with a small Fashion-MNIST; returns the count of downloads and the pictures."""
    from tests.test_datasets import debian_package

    arrays = idx_files(tmp_path / "source", packed=False)
    found: dict[str, Any] = {"downloads": 0, "arrays": arrays}

    def download(packages: list[str], target: Path, progress: Any) -> list[Path]:
        found["downloads"] += 1
        here = "./usr/share/datasets/fashion-mnist"
        files = {f"{here}/{name}.gz": gzip.compress(idx(array)) for name, array in arrays.items()}
        files["./usr/share/doc/dataset-fashion-mnist/README.md.gz"] = gzip.compress(b"x")
        return [debian_package(target / f"{packages[0]}_1_all.deb", files)]

    monkeypatch.setattr(fetch, "debian_packages", download)
    monkeypatch.setattr(mnist, "CHECKSUM", fetch.checksum(tmp_path / "source" / name for name in arrays))
    return found


def test_fashion_mnist_is_fetched_once(debian: dict[str, Any], tmp_path: Path) -> None:
    for _ in range(2):
        corpus = images.prepare(mnist.FashionMNIST(), tmp_path / "cache")
        assert sizes(corpus) == (20, 10, 10) and corpus.splits["test"].texts == list(mnist.CLOTHING)
    assert debian["downloads"] == 1
    expected = debian["arrays"]["t10k-images-idx3-ubyte"]
    np.testing.assert_array_equal(all_pictures(corpus.splits["test"])[..., 0], expected)
    (unpacked,) = (tmp_path / "cache/downloads").iterdir()
    assert sorted(file.name for file in unpacked.iterdir()) == sorted(debian["arrays"])


def test_another_version_of_fashion_mnist_is_refused(
    debian: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "CHECKSUM", "0" * 64)
    with pytest.raises(DataError, match=r"dataset-fashion-mnist_1_all.deb: .* expected 0{64}"):
        images.prepare(mnist.FashionMNIST(), tmp_path / "cache")
    assert list((tmp_path / "cache/downloads").iterdir()) == []


def test_without_debian_the_hub_serves_and_both_ways_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setenv("PATH", str(tmp_path))
    source = hub_repository(tmp_path / "hub", {"train": 4, "test": 2}, "image", {"label": ["zero", "one"]})
    corpus = images.prepare(mnist.FashionMNIST(repository=str(source), size=8, channels=3), tmp_path / "cache")
    assert set(corpus.splits["train"].texts) == {"T-shirt/top", "Trouser"}

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError) as caught:
        images.prepare(mnist.FashionMNIST(), tmp_path / "cache")
    message = str(caught.value)
    assert "apt-get is not on this machine" in message and "Couldn't reach the Hub" in message
    assert "dataset.path=FOLDER" in message


def hub_repository(path: Path, counts: dict[str, int], content: str, labels: dict[str, list[str]]) -> Path:
    """A local repository in the layout that the hub has: parquet files whose metadata declares the features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.mkdir()
    declared = {content: {"_type": "Image"}} | {c: {"_type": "ClassLabel", "names": n} for c, n in labels.items()}
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split, count in counts.items():
        files = [{"bytes": encoded(pixels(31 * len(split) + i, 8, 8)), "path": None} for i in range(count)]
        rows = [{content: file} | {c: i % len(n) for c, n in labels.items()} for i, file in enumerate(files)]
        table = pa.Table.from_pylist(rows)
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": declared}})})
        pq.write_table(table, path / f"{split}.parquet")
        lines += [f"  - split: {split}", f"    path: {split}.parquet"]
    (path / "README.md").write_text("\n".join([*lines, "---", ""]))
    return path


def test_cifar100_from_the_hub_has_the_published_names(tmp_path: Path) -> None:
    wrong = ["apple", "x", "y"]
    source = hub_repository(
        tmp_path / "hub", {"train": 6, "test": 3}, "img", {"fine_label": wrong, "coarse_label": ["a"]}
    )
    corpus = images.prepare(cifar.CIFAR100(repository=str(source), size=8), tmp_path / "cache")
    assert corpus.splits["test"].texts == ["apple", "aquarium_fish", "baby"]
    np.testing.assert_array_equal(all_pictures(corpus.splits["test"])[2], pixels(31 * 4 + 2, 8, 8))


def test_imagenet_is_tested_on_the_public_validation_split(tmp_path: Path) -> None:
    source = hub_repository(tmp_path / "hub", {"train": 8, "validation": 2}, "image", {"label": ["tench", "goldfish"]})
    corpus = images.prepare(imagenet.ImageNet(path=str(source), size=8), tmp_path / "cache")
    assert sizes(corpus) == (6, 2, 2) and corpus.splits["test"].origins[1].endswith("validation, row 1")


def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    corpus = images.prepare(digits.Digits(), tmp_path / "cache")
    assert sum(sizes(corpus)) == 1797 and sizes(corpus)[2] == 359
    known = load_digits()
    for split in corpus.splits.values():
        here = [int(name.split("/")[1]) for name in split.ids]
        np.testing.assert_array_equal(all_pictures(split)[..., 0], np.rint(known.images[here] * 255 / 16))
        assert split.texts == [str(n) for n in known.target[here]]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        images.prepare(digits.Digits(), tmp_path / "cache")


# ---- CIFAR

CIFAR = {  # layout -> classes
    "CIFAR-10": (cifar.CIFAR10, cifar.TEN),
    "CIFAR-100": (cifar.CIFAR100, cifar.HUNDRED),
}


def old_pickle(rows: np.ndarray, labels: list[int], key: str) -> bytes:
    """A dictionary as Python 2 pickled it, by hand, opcode for opcode, with the classes before the pixels or after."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + value.to_bytes(2, "little")

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text("b") + b"tR(K\x01"
    array += number(len(rows)) + number(rows.shape[1]) + b"\x86cnumpy\ndtype\n(" + text("u1") + b"K\x00K\x01tR(K\x03"
    array += text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    array += b"T" + rows.nbytes.to_bytes(4, "little") + rows.tobytes() + b"tb"
    classes = b"](" + b"".join(number(label) for label in labels) + b"e"
    names = b"](" + b"".join(text(f"name_{i}.png") for i in labels) + b"e"
    pairs = [(text("data"), array), (text(key), classes), (text("filenames"), names), (text("batch_label"), text("x"))]
    return b"\x80\x02}(" + b"".join(k + v for k, v in (pairs if len(labels) % 2 else pairs[::-1])) + b"u."


def write_cifar(path: Path, layout: cifar.Layout, kind: str) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Small files of one of the published versions; returns the pixels and classes of each split."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    found: dict[str, tuple[list[np.ndarray], list[int]]] = {"train": ([], []), "test": ([], [])}
    for split, batches in layout.batches.items():
        for number, name in enumerate(batches):
            count = 6 if kind == "png" else 5 + number
            shown = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
            labels = [int(n) for n in rng.integers(0, 3, count)]
            rows = np.ascontiguousarray(shown.transpose(0, 3, 1, 2)).reshape(count, -1)
            if kind == "bin":
                first = np.array([[9] * (layout.label_bytes - 1) + [label] for label in labels], np.uint8)
                (path / f"{name}.bin").write_bytes(np.hstack([first, rows]).tobytes())
            elif kind == "old pickle":
                (path / name).write_bytes(old_pickle(rows, labels, layout.key))
            elif kind == "new pickle":
                content = {"batch_label": "x", "coarse_labels": [9] * count, layout.key: labels, "data": rows.tobytes()}
                (path / name).write_bytes(pickle.dumps(content, protocol=4))
            else:
                (path / f"{name}.png").write_bytes(encoded(shown.reshape(count, 1024, 3)))
            found[split][0].append(shown)
            found[split][1].extend(labels)
        if kind == "png":
            (path / f"{split}_lables.json").write_text(json.dumps(found[split][1]))
    return {split: (np.concatenate(shown), labels) for split, (shown, labels) in found.items()}


@pytest.mark.parametrize("kind", ["bin", "old pickle", "new pickle", "png"])
@pytest.mark.parametrize("name", CIFAR)
def test_published_versions_of_cifar(name: str, kind: str, tmp_path: Path) -> None:
    made, layout = CIFAR[name]
    if kind == "png" and name == "CIFAR-100":
        return
    expected = write_cifar(tmp_path / "data/inner", layout, kind)
    fields: dict[str, Any] = {"validation_fraction": 0.0}
    corpus = images.prepare(made(path=str(tmp_path / "data"), **fields), tmp_path / "cache")
    for split, (shown, labels) in expected.items():
        np.testing.assert_array_equal(all_pictures(corpus.splits[split]), shown)
        assert corpus.splits[split].texts == [layout.names[label] for label in labels]
        assert corpus.splits[split].ids == [f"{split}/{i:05}" for i in range(len(labels))]
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "data/inner", "cifar-batches")
    packed = images.prepare(made(path=str(tmp_path / "data.tar.gz"), **fields), tmp_path / "cache")
    assert packed.fingerprint == corpus.fingerprint


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    write_cifar(tmp_path / "data", cifar.TEN, "new pickle")
    (tmp_path / "data/data_batch_2").write_bytes(pickle.dumps({"labels": [1], "data": Hostile()}))
    with pytest.raises(DataError, match=r"data_batch_2: damaged file: .*found 1 labels and"):
        images.prepare(cifar.CIFAR10(path=str(tmp_path / "data")), tmp_path / "cache")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "kind, file, content, said",
    [
        ("bin", "data_batch_3.bin", b"x" * 3074, "data_batch_3.bin: damaged file: .*3,074 bytes"),
        ("bin", "test_batch.bin", b"\x0a" + bytes(3072), "test_batch.bin, row 0: bad label: found class 10"),
        ("new pickle", "data_batch_1", b"\x80\x04garbage", "data_batch_1: damaged file"),
        ("png", "data_batch_1.png", b"GIF89a", "data_batch_1.png: damaged file: .*not a PNG"),
        ("png", "train_lables.json", b"[1, 2]", "1024 x 6 pixels and 2 classes"),
        ("png", "train_lables.json", b"[1, ", "data_batch_1.png: damaged file: .*Expecting value"),
    ],
)
def test_bad_cifar_files(kind: str, file: str, content: bytes, said: str, tmp_path: Path) -> None:
    write_cifar(tmp_path / "data", cifar.TEN, kind)
    (tmp_path / "data" / file).write_bytes(content)
    with pytest.raises(DataError, match=said):
        images.prepare(cifar.CIFAR10(path=str(tmp_path / "data")), tmp_path / "cache")


def test_a_folder_without_cifar_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no train.bin, train or train.png in it, expected .*CIFAR-100"):
        images.prepare(cifar.CIFAR100(path=str(tmp_path)), tmp_path / "cache")


def test_the_classes_of_cifar() -> None:
    assert len(set(cifar.NAMES_10)) == 10 and len(set(cifar.NAMES_100)) == 100
    assert list(cifar.NAMES_100) == sorted(cifar.NAMES_100) and cifar.NAMES_100[26] == "crab"


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


# ---- classes as tokens


def test_classes_are_in_numeric_order_then_by_name(tmp_path: Path) -> None:
    Labels().learn(["10", "cat", "9", "2", "Dog", "cat", "a\N{COMBINING ACUTE ACCENT}", "-1"], tmp_path)
    tokenizer = Labels().load(tmp_path)
    assert tokenizer.classes == ["2", "9", "10", "-1", "Dog", "cat", "\N{LATIN SMALL LETTER A WITH ACUTE}"]
    assert tokenizer.size == 7
    assert tokenizer.encode("10") == [2] and tokenizer.encode("3") == []
    assert tokenizer.encode("a\N{COMBINING ACUTE ACCENT}") == [6]
    assert tokenizer.unknown("3") == ["3"] and tokenizer.unknown("cat") == []
    assert tokenizer.decode([5]) == "cat" and tokenizer.decode([0, 1]) == "2, 9" and tokenizer.decode([]) == ""


@pytest.mark.parametrize("junk", ["", "{}", "[1]", '{"classes": 1}', '{"classes": [1]}', '{"classes": ["a", "a"]}'])
def test_classes_missing_or_damaged_are_said(junk: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"classes.json"):
        Labels().load(tmp_path)
    (tmp_path / "classes.json").write_text(junk)
    with pytest.raises(DataError, match=r"classes.json"):
        Labels().load(tmp_path)


TWIN = {
    "torch": """
from toolkit.tokenizers.labels.torch import Labels
ids, lengths = Labels(spec, tokenizer)(names)
assert ids.shape == (len(names), 1)
found = [row[:n].tolist() for row, n in zip(ids, lengths)]
texts = Labels(spec, tokenizer).detokenize(ids, lengths)
""",
    "tf": """
import tensorflow as tf
from toolkit.tokenizers.labels.tf import Labels
twin = Labels(spec, tokenizer)
ids = tf.function(twin, input_signature=[tf.TensorSpec([None], tf.string)])(tf.constant(names))
assert ids.dtype == tf.int32
back = tf.function(twin.detokenize, input_signature=[tf.RaggedTensorSpec([None, None], tf.int32)])
found, texts = ids.to_list(), [t.decode() for t in back(ids).numpy()]
""",
}


@pytest.mark.parametrize("backend", TWIN)
def test_twins_of_the_tokenizer_agree(backend: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    names = [
        "dog",
        "7",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "cafe\N{COMBINING ACUTE ACCENT}",
        "unseen",
        "",
        "DOG",
    ]
    Labels().learn(["dog", "7", "10", names[2], "犬"], tmp_path)
    code = "import json, sys\nfrom pathlib import Path\nfrom toolkit.tokenizers.labels.spec import Labels as Spec\n"
    code += "spec = Spec()\ntokenizer = spec.load(Path(sys.argv[1]))\nnames = json.loads(sys.argv[2])\n"
    code += TWIN[backend] + "print(json.dumps([found, texts]))"
    env = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", code, str(tmp_path), json.dumps(names)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found, texts = json.loads(done.stdout.splitlines()[-1])
    tokenizer = LabelTokenizer(["7", "10", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "dog", "犬"])
    assert found == [tokenizer.encode(name) for name in names] == [[3], [0], [2], [2], [], [], []]
    assert texts == [tokenizer.decode(ids) for ids in found]
