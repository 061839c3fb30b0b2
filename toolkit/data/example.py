"""Records as a dataset yields them, before decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPLITS = ("train", "validation", "test")

Content = bytes | np.ndarray  # a file, or decoded values


@dataclass(frozen=True, slots=True)
class File:
    """A value that a column decodes: audio or an image.

    Args:
        content: a path, the file's bytes, decoded values, or a function that returns bytes or values (then ``stamp``
            is required).
        name: file name of content that is not a path; its suffix gives the format.
        stamp: changes whenever the content changes; empty: derived from the file's size and times, or from the bytes.
    """

    content: Path | Content | Callable[[], Content]
    name: str = ""
    stamp: str = ""

    @property
    def file_name(self) -> str:
        return self.content.name if isinstance(self.content, Path) else self.name


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text with the name of its language, as one side of a translation."""

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Example:
    """One record of a dataset.

    Args:
        id: unique in the dataset.
        split: "train", "validation" or "test".
        values: column name -> value: a :class:`File` for audio and image, a string (or :class:`Sentence`) for text, a
            string for label.
        origin: where the user finds the record: "train/metadata.csv, line 12".
    """

    id: str
    split: str
    values: Mapping[str, object]
    origin: str

    @property
    def where(self) -> str:
        """The origin, with the name of the example's file if the origin lacks it."""
        names = [value.file_name for value in self.values.values() if isinstance(value, File)]
        extra = [name for name in names if name and name not in self.origin]
        return f"{self.origin} ({extra[0]})" if extra else self.origin
