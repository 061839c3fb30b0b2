"""Folders of bad pictures: what ``dataset=image_folder`` must refuse, each with pieces of the message that it must
give."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support import bad_data
from tests.support.bad_data import Case

CLASSES = ("cat", "dog")
SPLITS = {"train": 4, "validation": 1, "test": 1}  # pictures of each class
SIZE = 12  # height and width in pixels


def pixels(seed: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Noise, so that no two pictures are equal."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    """A file of the picture, given as such or as pixels."""
    stream = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(stream, kind, **options)
    return stream.getvalue()


def good_folder(folder: Path) -> list[Path]:
    """Write pictures of every class into every split; returns their files."""
    files = []
    for split, count in SPLITS.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                files.append(folder / split / name / f"{i}.png")
                files[-1].write_bytes(encoded(pixels(len(files))))
    return files


def promise(width: int, height: int) -> bytes:
    """A small PNG that says it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


def _with(name: str, data: bytes) -> Callable[[Path], None]:
    """The good folder and one more file."""

    def make(folder: Path) -> None:
        good_folder(folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return make


def _bad(data: bytes, suffix: str = ".png") -> Callable[[Path], None]:
    return _with(f"train/cat/bad{suffix}", data)


def _repeated(source: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        good_folder(folder)
        (folder / target).write_bytes((folder / source).read_bytes())

    return make


def _link(target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        good_folder(folder)
        (folder / "train/cat/bad.png").symlink_to(target)

    return make


def _pipe(folder: Path) -> None:
    good_folder(folder)
    os.mkfifo(folder / "train/cat/bad.png")


def _renamed(source: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        good_folder(folder)
        (folder / source).rename(folder / target)

    return make


def _empty_class(folder: Path) -> None:
    good_folder(folder)
    (folder / "train/bird").mkdir()


def _one_class(folder: Path) -> None:
    for file in good_folder(folder):
        if file.parent.name == "dog":
            file.unlink()
    for split in SPLITS:
        (folder / split / "dog").rmdir()


def _no_classes(folder: Path) -> None:
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
        (folder / split / f"{split}.png").write_bytes(encoded(pixels(len(split))))


def _empty_test(folder: Path) -> None:
    for file in good_folder(folder):
        if file.parts[-3] == "test":
            file.unlink()


def _two_dev(folder: Path) -> None:
    good_folder(folder)
    (folder / "dev/cat").mkdir(parents=True)
    (folder / "dev/cat/0.png").write_bytes(encoded(pixels(99)))


_IMAGE = Image.fromarray(pixels(70, 40, 40))
_PNG, _JPEG, _GIF, _WEBP = (encoded(_IMAGE, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP"))
_ODD = encoded(pixels(71, SIZE, 20))
_FLIPPED = bytes(byte ^ (255 * (i == len(_PNG) // 2)) for i, byte in enumerate(_PNG))
_HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
_FLOAT = encoded(Image.fromarray(pixels(72)[..., 0].astype(np.float32)), "TIFF")

# name -> maker of the folder, pieces of the message, whether dropping helps
CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], bool]] = {
    "no such folder": (lambda folder: None, ("missing folder", "no such folder"), False),
    "a file as folder": (bad_data.a_file, ("not a folder", "found a file", "images"), False),
    "empty folder": (lambda folder: folder.mkdir(), ("empty folder", "a folder of images for each class"), False),
    "no classes": (_no_classes, ("no classes", "expected a folder for each class"), False),
    "one class": (
        _one_class,
        ("train: one class", "found only 'cat'", "is dataset.path the folder with"),
        False,
    ),
    "unknown split": (_renamed("test", "tset"), ("tset/: unknown split", "did you mean 'test'"), False),
    "two folders for a split": (_two_dev, ("ambiguous split", "both mean validation"), False),
    "empty split": (_empty_test, ("test: empty split", "no image in its classes"), False),
    "several sizes": (_bad(_ODD), ("several sizes", "bad.png has 12 x 20 pixels", "dataset.size=N"), False),
    "image beside the classes": (_with("train/x.png", _PNG), ("train/x.png: no class",), True),
    "empty class": (_empty_class, ("train/bird: empty class",), True),
    "class that train lacks": (
        _with("test/bird/0.png", encoded(pixels(73))),
        ("test/bird/0.png: unknown class: 'bird' has no usable example", "'cat', 'dog'"),
        True,
    ),
    "other case": (
        _with("test/Cat/0.png", encoded(pixels(73))),
        ("unknown class: 'Cat'", "did you mean 'cat'"),
        True,
    ),
    "no image": (_with("train/cat/notes.txt", b"x"), ("notes.txt: not an image", "named .txt", ".png"), True),
    "without suffix": (_with("train/cat/notes", _PNG), ("train/cat/notes: not an image", "without suffix"), True),
    "control character": (_with("train/cat/a\nb.png", _PNG), ("bad name", r"'train/cat/a\nb.png'"), True),
    "not UTF-8": (_with(os.fsdecode(b"train/cat/\xff.png"), _PNG), ("bad name", r"\udcff.png"), True),
    "link to nothing": (_link("nowhere.png"), ("train/cat/bad.png: unreadable", "No such file"), True),
    "link to itself": (_link("bad.png"), ("train/cat/bad.png: unreadable", "symbolic links"), True),
    "a pipe": (_pipe, ("train/cat/bad.png: not a file",), True),
    "empty file": (_bad(b""), ("train/cat/bad.png: empty: the file has 0 bytes",), True),
    "truncated PNG": (_bad(_PNG[: len(_PNG) // 2]), ("bad.png: truncated", "a PNG file"), True),
    "truncated JPEG": (_bad(_JPEG[: len(_JPEG) // 2], ".jpg"), ("bad.jpg: truncated", "a JPEG file"), True),
    "truncated GIF": (_bad(_GIF[: len(_GIF) // 2], ".gif"), ("bad.gif: truncated", "a GIF file"), True),
    "truncated WebP": (_bad(_WEBP[: len(_WEBP) // 2], ".webp"), ("bad.webp: truncated", "the header promises"), True),
    "truncated header": (_bad(_PNG[:20]), ("bad.png: ", "cannot be read"), True),
    "damaged PNG": (_bad(_FLIPPED), ("bad.png: damaged", "a PNG file that cannot be decoded"), True),
    "text as image": (_bad(b"<html>Not found</html>"), ("mislabelled", "holds text, expected PNG"), True),
    "archive as image": (_bad(b"PK\x03\x04" + bytes(99)), ("not an image", "50 4b 03 04, expected PNG"), True),
    "bomb": (_bad(promise(60_000, 60_000)), ("bad.png: too large", "178,956,970 pixels"), True),
    "more than max_pixels": (_bad(promise(9_000, 9_000)), ("9000 x 9000 pixels", "dataset.max_pixels"), True),
    "HEIC": (_bad(_HEIC, ".heic"), ("bad.heic: no decoder: a HEIC image", "pip install pillow-heif"), True),
    "floats": (_bad(_FLOAT, ".tif"), ("bad.tif: unknown scale", "32 bits", "save it with 8 bits"), True),
    "in two splits": (
        _repeated("test/cat/0.png", "train/cat/copy.png"),
        (
            "train/cat/copy.png: in two splits",
            "the same image as test/cat/0.png, so it would be in both test and train",
        ),
        True,
    ),
    "in two classes": (
        _repeated("train/cat/0.png", "train/dog/copy.png"),
        ("train/dog/copy.png: in two classes", "the same image as train/cat/0.png, whose class is 'cat'"),
        True,
    ),
}


def make(root: Path) -> Iterator[Case]:
    """Make a folder for every kind of bad input in ``root``, an existing empty folder."""
    return bad_data.make(root, CASES)


def make_all_in_one(folder: Path) -> int:
    """Make one folder that has many bad pictures beside the good ones, and return how many."""
    good_folder(folder)
    bad = {
        "empty.png": b"",
        "cut.png": _PNG[: len(_PNG) // 2],
        "cut.jpg": _JPEG[: len(_JPEG) // 2],
        "page.png": b"<html>",
        "bomb.png": promise(60_000, 60_000),
        "phone.heic": _HEIC,
        "notes.txt": b"x",
    }
    for name, data in bad.items():
        (folder / "train/cat" / name).write_bytes(data)
    return len(bad)
