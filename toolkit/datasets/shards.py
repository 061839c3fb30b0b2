"""``dataset=audio_shards``, ``image_shards``, ``pair_shards``: your own data in Parquet, WebDataset or TFRecord shards
(:mod:`toolkit.data.sources.shards`) in the folder ``dataset.path``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.data.source import Source
from toolkit.data.sources.shards import Row, Shards, in_folder
from toolkit.datasets.base import SIDES, ImageDataset, PairDataset, SpeechDataset, labelled_image, pair, recording

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

AUDIO = ("audio", "wav", "flac", "mp3", "ogg", "opus", "m4a")
TEXT = ("text", "sentence", "transcript", "transcription", "txt")
IMAGE = ("image", "jpg", "jpeg", "png", "webp", "image/encoded")
LABEL = ("label", "class", "cls", "image/class/text", "image/class/label")


def read_all(dataset: Source, cache: Path) -> Iterator[Example | Problem]:
    """Yield all examples of a dataset, except those of a streamed split."""
    for split in dataset.kept:
        yield from dataset.shards(split, cache).all_examples(dataset, split)


def _require_path(dataset: Any) -> Iterator[tuple[str, str]]:
    if not dataset.path:
        yield "path", "not set; set dataset.path=FOLDER, the folder of your shards"


def pair_of(split: str, row: Row, languages: tuple[str, str]) -> Example | Problem:
    """Convert a record with the fields ``source`` and ``target``."""
    source, target = (row.fields[side] for side in SIDES)
    if isinstance(source, str) and isinstance(target, str):
        return pair(f"{split}/{row.number}", split, source, target, row.where, languages)
    return Problem("wrong type", row.where, f"found {source!r} and {target!r}, expected two texts")


@spec
class AudioShards(SpeechDataset):
    """Your own recordings in shards."""

    sharded: ClassVar[bool] = True

    path: str | None = option(None, "folder with the shards")
    audio: tuple[str, ...] = option(AUDIO, "possible names of the field with the recording")
    text: tuple[str, ...] = option(TEXT, "possible names of the field with the transcript")

    def check(self) -> Iterator[tuple[str, str]]:
        yield from _require_path(self)

    def shards(self, split: str, cache: Path) -> Shards:
        return in_folder(self.path, {"recording": self.audio, "transcript": self.text}, "recording", split)

    def example(self, split: str, row: Row) -> Example | Problem:
        text = row.fields["transcript"]
        if not isinstance(text, str):
            return Problem("wrong type", row.where, f"found {text!r}, expected a transcript")
        return recording(f"{split}/{row.number}", split, text, row.read, row.where, row.file_name, row.stamp)

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        yield from read_all(self, cache)


@spec
class ImageShards(ImageDataset):
    """Your own images in shards."""

    sharded: ClassVar[bool] = True

    path: str | None = option(None, "folder with the shards")
    image: tuple[str, ...] = option(IMAGE, "possible names of the field with the image")
    label: tuple[str, ...] = option(LABEL, "possible names of the field with the class")

    def check(self) -> Iterator[tuple[str, str]]:
        yield from _require_path(self)

    def shards(self, split: str, cache: Path) -> Shards:
        return in_folder(self.path, {"image": self.image, "class": self.label}, "image", split)

    def example(self, split: str, row: Row) -> Example | Problem:
        label = row.fields["class"]
        if not isinstance(label, str) and (type(label) is not int or label < 0):
            return Problem("wrong type", row.where, f"found {label!r}, expected the name or the number of a class")
        return labelled_image(f"{split}/{row.number}", split, str(label), row.read, row.where, row.file_name, row.stamp)

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        yield from read_all(self, cache)


@spec
class PairShards(PairDataset):
    """Your own sentence pairs in shards, in fields named by language."""

    sharded: ClassVar[bool] = True

    path: str | None = option(None, "folder with the shards")
    source: str = option("en", "language to translate from: the name of its field")
    target: str = option("de", "language to translate to: the name of its field")

    def check(self) -> Iterator[tuple[str, str]]:
        yield from PairDataset.check(self)
        yield from _require_path(self)

    def shards(self, split: str, cache: Path) -> Shards:
        wanted = {"source": (self.source,), "target": (self.target,)}
        return in_folder(self.path, wanted, None, split)

    def example(self, split: str, row: Row) -> Example | Problem:
        return pair_of(split, row, (self.source, self.target))

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        yield from read_all(self, cache)
