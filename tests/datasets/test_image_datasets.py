"""The named datasets of pictures: their published files and the hub's, whole and damaged."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import hub
from tests.support.archives import debian_package
from tests.support.bad_pictures import encoded, pixels
from tests.support.corpora import prepare, sizes
from tests.support.image_runs import all_pixels
from toolkit.data.sources import fetch
from toolkit.data.sources import hub as hub_source
from toolkit.datasets import cifar, digits, imagenet, mnist
from toolkit.errors import DataError


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
    corpus = prepare(mnist.MNIST(path=str(tmp_path / "data")), tmp_path / "cache")
    assert sizes(corpus) == (20, 10, 10)  # one of the three of each class to validate
    for split in ("train", "validation"):
        here = [int(name.split("/")[1]) for name in corpus.splits[split].ids]
        wanted = arrays["train-images-idx3-ubyte"][here]
        np.testing.assert_array_equal(all_pixels(corpus.splits[split])[..., 0], wanted)
        assert corpus.splits[split].references == [str(n) for n in arrays["train-labels-idx1-ubyte"][here]]
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
        ("fewer", "30 images, but 29 classes in train-labels-idx1-ubyte.gz"),
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
        prepare(mnist.FashionMNIST(path=str(tmp_path / "data")), tmp_path / "cache")
    assert said in str(caught.value)


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for Debian with a small Fashion-MNIST; returns the count of downloads and the pictures."""
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
        corpus = prepare(mnist.FashionMNIST(), tmp_path / "cache")
        assert sizes(corpus) == (20, 10, 10) and corpus.splits["test"].references == list(mnist.CLOTHING)
    assert debian["downloads"] == 1
    expected = debian["arrays"]["t10k-images-idx3-ubyte"]
    np.testing.assert_array_equal(all_pixels(corpus.splits["test"])[..., 0], expected)
    (unpacked,) = (tmp_path / "cache/downloads").iterdir()
    assert sorted(file.name for file in unpacked.iterdir()) == sorted(debian["arrays"])


def test_another_version_of_fashion_mnist_is_refused(
    debian: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "CHECKSUM", "0" * 64)
    with pytest.raises(DataError, match=r"dataset-fashion-mnist_1_all.deb: .* expected 0{64}"):
        prepare(mnist.FashionMNIST(), tmp_path / "cache")
    assert list((tmp_path / "cache/downloads").iterdir()) == []


def test_without_debian_the_hub_serves_and_both_ways_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    source = hub.images(tmp_path / "hub", {"train": 4, "test": 2}, "image", {"label": ["zero", "one"]})
    corpus = prepare(mnist.FashionMNIST(repository=str(source), size=8, channels=3), tmp_path / "cache")
    assert set(corpus.splits["train"].references) == {"T-shirt/top", "Trouser"}

    monkeypatch.setattr(hub_source, "_obstacle", lambda source: "the hub cannot be reached")
    with pytest.raises(DataError) as caught:
        prepare(mnist.FashionMNIST(), tmp_path / "cache")
    message = str(caught.value)
    assert "apt-get is not on this machine" in message and "the hub cannot be reached" in message
    assert "dataset.path=FOLDER" in message


def test_cifar100_from_the_hub_has_the_published_names(tmp_path: Path) -> None:
    wrong = ["apple", "x", "y"]
    source = hub.images(tmp_path / "hub", {"train": 6, "test": 3}, "img", {"fine_label": wrong, "coarse_label": ["a"]})
    corpus = prepare(cifar.CIFAR100(repository=str(source), size=8), tmp_path / "cache")
    assert corpus.splits["test"].references == ["apple", "aquarium_fish", "baby"]
    np.testing.assert_array_equal(all_pixels(corpus.splits["test"])[2], pixels(31 * 4 + 2, 8, 8))


def test_imagenet_is_tested_on_the_public_validation_split(tmp_path: Path) -> None:
    source = hub.images(tmp_path / "hub", {"train": 8, "validation": 2}, "image", {"label": ["tench", "goldfish"]})
    corpus = prepare(imagenet.ImageNet(path=str(source), size=8), tmp_path / "cache")
    assert sizes(corpus) == (6, 2, 2) and corpus.splits["test"].origins[1].endswith("validation, row 1")


def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    corpus = prepare(digits.Digits(), tmp_path / "cache")
    assert sum(sizes(corpus)) == 1797 and sizes(corpus)[2] == 359
    known = load_digits()
    for split in corpus.splits.values():
        here = [int(name.split("/")[1]) for name in split.ids]
        np.testing.assert_array_equal(all_pixels(split)[..., 0], np.rint(known.images[here] * 255 / 16))
        assert split.references == [str(n) for n in known.target[here]]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        prepare(digits.Digits(), tmp_path / "cache")


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
    corpus = prepare(made(path=str(tmp_path / "data"), **fields), tmp_path / "cache")
    for split, (shown, labels) in expected.items():
        np.testing.assert_array_equal(all_pixels(corpus.splits[split]), shown)
        assert corpus.splits[split].references == [layout.names[label] for label in labels]
        assert corpus.splits[split].ids == [f"{split}/{i:05}" for i in range(len(labels))]
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "data/inner", "cifar-batches")
    packed = prepare(made(path=str(tmp_path / "data.tar.gz"), **fields), tmp_path / "cache")
    assert packed.fingerprint == corpus.fingerprint


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    write_cifar(tmp_path / "data", cifar.TEN, "new pickle")
    (tmp_path / "data/data_batch_2").write_bytes(pickle.dumps({"labels": [1], "data": Hostile()}))
    with pytest.raises(DataError, match=r"data_batch_2: damaged file: .*found 1 labels and"):
        prepare(cifar.CIFAR10(path=str(tmp_path / "data")), tmp_path / "cache")
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
        prepare(cifar.CIFAR10(path=str(tmp_path / "data")), tmp_path / "cache")


def test_a_folder_without_cifar_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no train.bin, train or train.png in it, expected .*CIFAR-100"):
        prepare(cifar.CIFAR100(path=str(tmp_path)), tmp_path / "cache")


def test_the_classes_of_cifar() -> None:
    assert len(set(cifar.NAMES_10)) == 10 and len(set(cifar.NAMES_100)) == 100
    assert list(cifar.NAMES_100) == sorted(cifar.NAMES_100) and cifar.NAMES_100[26] == "crab"
