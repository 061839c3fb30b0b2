"""Kinds of bad data, each with a folder that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One kind of bad input: the folder to give as ``dataset.path`` and what the error must say."""

    name: str
    path: Path
    fragments: tuple[str, ...]
    droppable: bool = False  # whether dataset.on_bad=drop can do without the bad example
    fields: Mapping[str, Any] = field(default_factory=dict)  # other fields of the dataset


# name -> maker of the folder, and the fields of a case after the path
Kinds = Mapping[str, tuple[Callable[[Path], None], *tuple[Any, ...]]]


def make(root: Path, kinds: Kinds) -> Iterator[Case]:
    """Make a folder for every kind of bad input.

    Args:
        root: an existing empty folder.
        kinds: of bad input.
    """
    for name, (maker, *rest) in kinds.items():
        path = root / name.replace(" ", "_")
        maker(path)
        yield Case(name, path, *rest)


def a_file(folder: Path) -> None:
    """Put a file in the place of the folder."""
    folder.write_bytes(b"x")
