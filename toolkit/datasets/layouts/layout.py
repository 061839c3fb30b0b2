"""A layout of recordings and transcripts, and the choice of its sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.example import SPLITS, Example
from toolkit.data.problems import Problem, nearest
from toolkit.data.sources.folder import ALIASES

Items = Iterator[Example | Problem]


@dataclass(frozen=True)
class Part:
    """A set of a layout.

    Args:
        name: as the user names it: "dev-clean".
        split: "train", "validation" or "test"; empty: unknown.
        path: its folder or its list.
    """

    name: str
    split: str
    path: Path


@dataclass(frozen=True)
class Source:
    """A folder that is read.

    Args:
        root: the dataset's folder.
        text_column: of the transcripts, in lists with columns; None: the first of the usual names.
    """

    root: Path
    text_column: str | None = None


@dataclass(frozen=True)
class Layout:
    """A way to store recordings and transcripts.

    Args:
        name: for messages.
        sketch: its files, in a few words.
        lines: two lines of its list, with ``{file}`` and ``{stem}`` for the name of a recording.
        signs: patterns of names that are probably meant as this layout.
        parts: lists the sets in a folder; none if it has another layout.
        read: yields the examples of a set.
    """

    name: str
    sketch: str
    lines: tuple[str, str]
    signs: Sequence[str]
    parts: Callable[[Path], Sequence[Part]]
    read: Callable[[Source, Part], Items]


def split_in(name: str) -> str:
    """Return the split in a name, such as ``train`` in ``train-clean-100``: the last one; empty if there is none."""
    words = [ALIASES.get(word, word) for word in re.findall("[a-z]+", name.lower())]
    return next((word for word in reversed(words) if word in SPLITS), "")


def chosen(parts: Sequence[Part], choice: Mapping[str, str | None]) -> tuple[list[Part], list[Problem]]:
    """Return the sets that are read, and the problems with the choice.

    Several sets for training are joined. One set without a split is for training.

    Args:
        parts: all sets.
        choice: split -> name of its set; None: there is only one.
    """
    if len(parts) == 1 and not parts[0].split and not any(choice.values()):
        return list(parts), []
    problems = []
    for part in parts:
        if not part.split and len(parts) > 1:
            message = f"found {part.name!r}, expected {', '.join(SPLITS)} in its name"
            problems.append(
                Problem("unknown split", part.name, message + nearest(part.name, [*SPLITS, *ALIASES]), fatal=True)
            )
    kept = [part for part in parts if part.split == "train"]
    for split, name in choice.items():
        candidates = [part for part in parts if part.split == split]
        named = [part for part in candidates if name in (None, part.name)]
        names = ", ".join(part.name for part in candidates) or f"no {split} set"
        if name and not named:
            problems.append(
                Problem("missing set", split, f"found {names}, expected {name} (dataset.{split})", fatal=True)
            )
        elif len(named) > 1:
            message = f"found {names}, expected one of them; choose it by dataset.{split}={named[0].name}"
            problems.append(Problem("ambiguous split", split, message, fatal=True))
        kept += named
    return kept, problems
