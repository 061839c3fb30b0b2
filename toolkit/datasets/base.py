"""Base classes of the datasets: recordings with transcripts, images with classes, pairs of sentences."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data import cache
from toolkit.data.columns.audio import Audio, AudioFields
from toolkit.data.columns.column import Column
from toolkit.data.columns.image import Image, ImageFields
from toolkit.data.columns.label import Label
from toolkit.data.columns.text import Text, TextFields
from toolkit.data.example import Content, Example, File, Sentence
from toolkit.data.problems import Problem
from toolkit.data.source import Source
from toolkit.data.sources.shards import Row, bad_label

SIDES = ("source", "target")  # columns of a pair of sentences


@spec
class HubFields:
    """Fields of every dataset that is read from the Hugging Face hub."""

    revision: str | None = option(
        None, "branch, tag or commit of the repository on the hub; null: its main branch; not used with a path"
    )


def check_fractions(validation: float, test: float) -> Iterator[tuple[str, str]]:
    """Yield the field and the message of fractions of train that leave nothing to train on."""
    if validation + test >= 1:
        yield "test_fraction", f"found {test} with validation_fraction {validation}, expected a sum below 1"


@spec
class SpeechDataset(Source, AudioFields, TextFields):
    """Fields of every dataset of recordings with transcripts."""

    columns: ClassVar[Mapping[str, type[Column[Any]]]] = {"audio": Audio, "text": Text}
    transcribed: ClassVar[bool] = True

    pool: int = option(256, "streaming: examples of a pool, which is cut into batches of similar length", ge=1)
    sample: int = option(1_000, "streaming: first examples, from which tokenizer and features are learned", ge=1)


def recording(
    id: str,
    split: str,
    text: str,
    audio: Path | Content | Callable[[], Content],
    origin: str,
    name: str = "",
    stamp: str = "",
) -> Example:
    """Create an example of a :class:`SpeechDataset`; see :class:`File` for ``audio``, ``name`` and ``stamp``."""
    return Example(id, split, {"audio": File(audio, name, stamp), "text": text}, origin)


@spec
class ImageDataset(Source, ImageFields):
    """Fields of every dataset of images with classes."""

    columns: ClassVar[Mapping[str, type[Column[Any]]]] = {"image": Image, "label": Label}

    validation_fraction: float = option(
        0.1,
        "fraction of the training images of each class that is carved for validation if that split is missing, by a "
        "hash of split_seed and each image's id",
        ge=0,
        lt=1,
    )
    split_seed: int = option(0, "seed of the carved splits", ge=0)
    repeats: Literal["bad", "keep"] = option(
        "bad", "the same file in two splits or in two classes: bad, or kept and counted in the log"
    )

    def carved(self) -> dict[str, float]:
        """Return the splits that are carved from train if the data lacks them, and their fractions."""
        return {"validation": self.validation_fraction}

    def arrange(self, examples: list[Example]) -> list[Example]:
        return carve(examples, self.carved(), self.split_seed)


def labelled_image(
    id: str,
    split: str,
    label: str,
    image: Path | Content | Callable[[], Content],
    origin: str,
    name: str = "",
    stamp: str = "",
) -> Example:
    """Create an example of an :class:`ImageDataset`; see :class:`File` for ``image``, ``name`` and ``stamp``."""
    return Example(id, split, {"image": File(image, name, stamp), "label": label}, origin)


def labelled_rows(rows: Iterable[Row | Problem], split: str, column: str) -> Iterator[Example | Problem]:
    """Convert the rows of a split on the hub; ``column`` has the classes. An image's id is its position."""
    for i, row in enumerate(rows):
        if isinstance(row, Problem):
            yield row
        else:
            name, label = f"{split}/{i:05}", row.fields[column]
            yield labelled_image(name, split, label, row.read, row.where, row.file_name, row.stamp)


def carve(examples: Sequence[Example], shares: Mapping[str, float], seed: int) -> list[Example]:
    """Move fractions of the training examples to missing splits.

    Each class gives the same fraction, rounded, but at least one example and never its last one. A hash of seed and id
    selects the examples, so neither the order of the examples nor the ids of the others matter.

    Args:
        examples: of all splits.
        shares: split -> fraction of the training examples.
        seed: selects the examples.
    """
    present = {example.split for example in examples}
    missing = {split: share for split, share in shares.items() if share and split not in present}
    ids_of_class: dict[object, list[str]] = defaultdict(list)
    for example in examples:
        if missing and example.split == "train":
            ids_of_class[example.values["label"]].append(example.id)
    split_of: dict[str, str] = {}
    for ids in ids_of_class.values():
        ordered = sorted(ids, key=lambda id: hashlib.sha256(f"{seed}\0{id}".encode("utf-8", "replace")).digest())
        for split, share in missing.items():
            count = min(max(1, round(share * len(ids))), len(ordered) - 1)
            split_of |= dict.fromkeys(ordered[:count], split)
            ordered = ordered[count:]
    return [dataclasses.replace(e, split=split_of[e.id]) if e.id in split_of else e for e in examples]


@spec
class PairDataset(Source, TextFields):
    """Fields of every dataset of sentences and their translations."""

    columns: ClassVar[Mapping[str, type[Column[Any]]]] = {"source": Text, "target": Text}

    pool: int = option(8192, "streaming: examples of a pool, which is cut into batches of similar length", ge=1)
    max_tokens: int | None = option(
        256, "longest sentence, in tokens; a pair with a longer one is bad; null: no bound", ge=1
    )
    source: str | None = option(None, "language to translate from, as the data names it: en")
    target: str | None = option(None, "language to translate to, as the data names it: de")
    max_ratio: float | None = option(
        None, "largest ratio of the characters of the two sentences; a pair beyond it is bad; null: no bound", gt=1
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.source is not None and self.source == self.target:
            yield "target", f"found {self.target}, which is dataset.source too, expected another language"

    def flaw(self, example: Example) -> tuple[str, str]:
        if self.max_ratio is None:
            return "", ""
        values = [example.values[side] for side in SIDES]
        sides = [value if isinstance(value, Sentence) else Sentence(str(value), "") for value in values]
        short, long = sorted(len(side.text) for side in sides)
        if long > self.max_ratio * short:
            lengths = ", ".join(f"{len(side.text)} characters {side.language}".rstrip() for side in sides)
            return "length ratio", f"{lengths}, expected at most {self.max_ratio:g} times as many (dataset.max_ratio)"
        return "", ""


def pair(id: str, split: str, source: str, target: str, origin: str, languages: tuple[str, str]) -> Example:
    """Create an example of a :class:`PairDataset`; bytes that are not UTF-8 are decoded by ``surrogateescape``."""
    sentences = (Sentence(text, language) for text, language in zip((source, target), languages, strict=True))
    return Example(id, split, dict(zip(SIDES, sentences, strict=True)), origin)


class Later:
    """Pixels of many images in one file, which is read on first use.

    Args:
        read: returns ``(images, height, width[, channels])`` uint8.
    """

    def __init__(self, read: Callable[[], np.ndarray]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._pixels: np.ndarray | None = None

    def __call__(self, i: int) -> np.ndarray:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._read()
        return self._pixels[i]


def labelled(
    split: str, first: int, labels: Sequence[int], names: Sequence[str], pixels: Callable[[int], np.ndarray], file: Path
) -> Iterator[Example | Problem]:
    """Yield the images of a file of raw pixels, with their position in the split as id.

    Args:
        split: of the images.
        first: position in the split of the file's first image.
        labels: class number of each image.
        names: of the classes.
        pixels: position in the file -> pixels.
        file: holds the pixels.
    """
    stamp = cache.file_identity(file)
    for i, label in enumerate(labels):
        where = f"{file.name}, row {i}"
        if message := bad_label(label, names):
            yield Problem("bad label", where, message)
        else:
            image = functools.partial(pixels, i)
            yield labelled_image(f"{split}/{first + i:05}", split, names[label], image, where, stamp=f"{stamp} {i}")
