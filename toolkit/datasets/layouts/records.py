"""Recordings as lists name them, and their conversion to examples."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from toolkit.data import cache
from toolkit.data.example import Example
from toolkit.data.media import piece
from toolkit.data.media.audio import FORMATS
from toolkit.data.problems import Problem
from toolkit.data.sources.folder import name_in
from toolkit.datasets.base import recording


@dataclass(frozen=True)
class Record:
    """An utterance as a list names it.

    Args:
        where: its place in the list: "train.tsv, line 3".
        split: "train", "validation" or "test".
        file: name or path of its recording.
        text: its transcript.
        id: unique in the dataset; empty: the path of the recording without suffix.
        start: of the utterance in the recording, in seconds; None: it is the whole recording.
        seconds: its length; None: it ends with the recording.
    """

    where: str
    split: str
    file: str
    text: str
    id: str = ""
    start: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Lookup:
    """The folders in which the files of a list are looked up.

    Args:
        root: the dataset's folder.
        folders: for relative names, in order.
        field: its name in messages.
        anywhere: absolute paths and paths with ``..`` are usual in such a list.
    """

    root: Path
    folders: Sequence[Path]
    field: str = "file_name"
    anywhere: bool = False

    def example(self, record: Record) -> Example | Problem:
        """Convert a record, or return the problem with its file."""
        paths = self._paths(record)
        if isinstance(paths, Problem):
            return paths
        listed, path = paths
        identity = record.id or identity_of(self.root, listed)
        if record.start is None:
            return recording(identity, record.split, record.text, path, record.where)
        start, seconds = record.start, record.seconds
        end = "" if seconds is None else f" to {start + seconds:g}"
        identity = record.id or f"{identity}@{start:g}{end.replace(' to ', '-')}"
        read = functools.partial(piece.read, path, start, seconds)
        stamp, name = f"{cache.file_identity(path)} {start} {seconds}", f"{path.name}, {start:g}{end} s"
        return recording(identity, record.split, record.text, read, record.where, name, stamp)

    def _paths(self, record: Record) -> tuple[Path, Path] | Problem:
        """Return the path of a record's file as the list has it, and as the disk has it."""
        name, where = record.file, record.where
        if not name.strip() or "\0" in name:
            return Problem("missing file", where, f"{self.field} is {name!r}, expected the name of an audio file")
        pure = PurePosixPath(name)
        if not self.anywhere and (pure.is_absolute() or ".." in pure.parts):
            message = f"{self.field} is {name!r}, expected a file inside the folder (no '..', no absolute path)"
            return Problem("outside the folder", where, message)
        for folder in self.folders:
            if os.path.isfile(path := on_disk(folder, name)):
                return Path(os.path.normpath(folder / name)), path
        if self.anywhere and pure.is_absolute() and (moved := self._moved(pure)):
            return moved, moved
        return Problem("missing file", where, self._missing(name))

    def _moved(self, name: PurePosixPath) -> Path | None:
        """Return the file inside the dataset's folder at the longest end of a path of another machine.

        The name of the file alone is not enough: other folders of that machine may have had one of that name.
        """
        ends = (self.root.joinpath(*name.parts[first:]) for first in range(1, len(name.parts) - 1))
        return next((path for path in ends if ".." not in name.parts and os.path.isfile(path)), None)

    def _missing(self, name: str) -> str:
        folder = next((folder for folder in self.folders if os.path.lexists(folder / name)), self.folders[0])
        path = folder / name
        if os.path.islink(path):
            return f"{name!r} is a link to {os.readlink(path)!r}, which does not exist"
        if os.path.lexists(path):
            return f"{name!r} is not a file"
        if any(len(os.fsencode(part)) > 255 for part in path.parts):
            return f"found no file {name[:40]!r}...: its name has {len(name):,} characters, more than a disk allows"
        suffixes = (form for suffix in FORMATS for form in (suffix, suffix.upper()))
        others = [path.with_suffix(s).name for s in suffixes if path.name and os.path.isfile(path.with_suffix(s))]
        looked = ""
        if len(self.folders) > 1 and not PurePosixPath(name).is_absolute():
            looked = f" in {' or '.join(name_in(self.root, folder) for folder in self.folders)}"
            looked += "; set dataset.path to the folder in which this path begins" if self.anywhere else ""
        return f"found no file {name!r}{looked}" + (f"; did you mean {others[0]!r}?" if others else "")


def on_disk(folder: Path, name: str) -> Path:
    """Return the path of a file whose name on the disk may have another Unicode form, such as NFD from a Mac."""
    path = folder / name
    if name.isascii() or os.path.lexists(path):
        return path
    path = folder
    for part in PurePosixPath(name).parts:
        forms = [path / part, *(path / unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        path = next((form for form in forms if os.path.lexists(form)), forms[0])
    return path


def upwards(root: Path, folder: Path) -> list[Path]:
    """Return a folder and those above it up to the dataset's."""
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def identity_of(root: Path, path: Path) -> str:
    """Return the id of a recording: its path without suffix, in the dataset's folder or else absolute."""
    base, path = (Path(os.path.abspath(one)) for one in (root, path))
    inside = path.relative_to(base) if path.is_relative_to(base) else path
    return inside.with_suffix("").as_posix()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield files and dangling links below a folder, without hidden ones and those in hidden folders."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if not name.startswith(".") and (os.path.isfile(path) or os.path.islink(path)):
                yield path


def entries(folder: Path) -> list[Path]:
    """List what is in a folder and not hidden; nothing if the folder cannot be read, such as lost+found."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder that are not hidden."""
    return [path for path in entries(folder) if os.path.isdir(path)]


def recordings_in(folder: Path) -> dict[str, Path]:
    """Return the audio files of a folder by their names without suffix, in NFC."""
    return {nfc(path.stem): path for path in entries(folder) if path.suffix.lower() in FORMATS}


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
