"""Lists of image files and their labels: tables separated by comma, semicolon or tab, JSON lines, ``FILE CLASS`` lines.

A table may lack its header: then its first column has the files and its second the labels.
"""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from toolkit.data.example import SPLITS
from toolkit.data.media.image import FORMATS
from toolkit.data.problems import Problem
from toolkit.data.sources.folder import ALIASES
from toolkit.data.sources.lines import read_lines

FILES = ("file_name", "image", "file", "filename", "path", "filepath", "image_path", "image_id", "imageid", "id")
# the last is Kaggle's for ImageNet: its first word is the class, and boxes follow
LABELS = ("label", "class", "category", "class_name", "predictionstring")
TABLES = (".csv", ".tsv", ".txt")
JSON_LINES = (".jsonl", ".ndjson")
EXPECTED = "expected a column of files (file_name) and one of classes (label)"


@dataclass(frozen=True)
class Form:
    """The form of a list.

    Args:
        delimiter: of a table; empty: white space before the label; None: JSON lines.
        columns: names in small letters.
        header: whether the first line has the names.
    """

    delimiter: str | None
    columns: tuple[str, ...]
    header: bool = True

    @property
    def file(self) -> str | None:
        return next((name for name in FILES if name in self.columns), None)

    @property
    def label(self) -> str | None:
        return next((name for name in LABELS if name in self.columns), None)

    @property
    def complete(self) -> bool:
        """Whether the list has files and labels."""
        return self.file is not None and self.label is not None


@dataclass(frozen=True)
class Entry:
    """One line of a list; ``split`` may be empty."""

    where: str
    file: str
    label: str
    split: str


def is_list(file: Path) -> bool:
    """Tell whether a file may be a list by its name: texts are lists only if they name a split."""
    suffix = file.suffix.lower()
    return suffix in (*TABLES, *JSON_LINES) and (suffix != ".txt" or bool(split_in(file.stem)))


def split_in(name: str) -> str:
    """Return the split that a word of a list's name stands for: ``LOC_val_solution``; empty if there is none."""
    words = [ALIASES.get(word, word) for word in re.split(r"[^a-z]+", name.lower())]
    return next((word for word in words if word in SPLITS), "")


def form_of(lines: Sequence[str], suffix: str) -> Form:
    """Return the form of a list by its ending and its first line."""
    first = next((line for line in lines if line.strip()), "")
    if suffix.lower() in JSON_LINES:
        try:
            fields = json.loads(first)
        except (json.JSONDecodeError, RecursionError):
            fields = None
        return Form(None, tuple(str(name).lower() for name in fields) if isinstance(fields, dict) else ())
    tables = [(delimiter, [cell.strip() for cell in _cells(first, delimiter)]) for delimiter in ("\t", ";", ",")]
    tables.append(("", first.split()[:1] + first.split()[-1:]))
    for delimiter, cells in tables[:-1]:
        form = Form(delimiter, tuple(cell.lower() for cell in cells))
        if form.complete:
            return form
    for delimiter, cells in tables:
        if len(cells) > 1 and PurePosixPath(cells[0]).suffix.lower() in FORMATS:
            return Form(delimiter, ("file_name", "label", *[""] * (len(cells) - 2)), header=False)
    delimiter, cells = max(tables[:-1], key=lambda table: len(table[1]))
    return Form(delimiter, tuple(cell.lower() for cell in cells))


def read_list(file: Path, where: str) -> Iterator[Entry | Problem]:
    """Yield the entries of a list that has files and labels, and the problems with its lines."""
    lines = read_lines(file, where)
    if isinstance(lines, Problem):
        yield lines
        return
    form = form_of(lines, file.suffix)
    if not form.complete:
        columns = ", ".join(name for name in form.columns if name)[:200] or "an empty file"
        yield Problem("missing column", f"{where}, line 1", f"found {columns}; {EXPECTED}", fatal=True)
        return
    rows = _objects(lines, where) if form.delimiter is None else _rows(lines, form, where)
    for row in rows:
        yield row if isinstance(row, Problem) else _entry(form, *row)


def _entry(form: Form, where: str, fields: dict[str, object]) -> Entry | Problem:
    values = []
    for column in (form.file, form.label, "split"):
        value = fields.get(str(column))
        if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
            return Problem("wrong type", where, f"{column} is {value!r:.60} ({type(value).__name__}), expected text")
        values.append("" if value is None else str(value).strip())
    name, label, split = values
    if not name:
        return Problem("missing file", where, "found no file name, expected the name of an image")
    if form.label == "predictionstring":
        label = label.partition(" ")[0]
    return Entry(where, name, label, ALIASES.get(split.lower(), split.lower()))


def _rows(lines: Sequence[str], form: Form, where: str) -> Iterator[tuple[str, dict[str, object]] | Problem]:
    """Yield place and fields of the rows of a table."""
    if not form.delimiter:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{where}, line {number}", dict(zip(form.columns, line.rsplit(None, 1), strict=False))
        return
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=form.delimiter, strict=True)
    skip = form.header
    while True:
        place = f"{where}, line {reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem("bad line", place, f"not valid CSV: {error}; is a quote missing?")
            continue
        if skip or not row:
            skip = skip and not row
        elif len(row) != len(form.columns):
            message = f"{len(row)} fields, the {'header' if form.header else 'first line'} has {len(form.columns)}"
            yield Problem("bad line", place, message)
        else:
            yield place, dict(zip(form.columns, row, strict=True))


def _objects(lines: Iterable[str], where: str) -> Iterator[tuple[str, dict[str, object]] | Problem]:
    """Yield place and fields of JSON lines."""
    for number, line in enumerate(lines, 1):
        place = f"{where}, line {number}"
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield Problem("bad line", place, f"not valid JSON: {error}")
            continue
        if isinstance(fields, dict):
            yield place, {str(name).lower(): value for name, value in fields.items()}
        else:
            yield Problem("bad line", place, f"found a JSON {type(fields).__name__}, expected an object {{...}}")


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


class Finder:
    """A search for the files that lists name; the folders are read once.

    A name in another Unicode form than that on the disk (macOS writes NFD) is found, and one without its suffix.
    """

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, str]] = {}

    def find(self, bases: Sequence[Path], name: str) -> Path | None:
        """Return the path of a file or dangling link below one of the folders; None if there is none."""
        spellings = [name] if "/" in name else dict.fromkeys((name, name.replace("\\", "/")))
        paths = (self._below(base, PurePosixPath(spelling).parts) for spelling in spellings for base in bases)
        return next((path for path in paths if path), None)

    def _below(self, path: Path, parts: Sequence[str]) -> Path | None:
        if os.path.lexists(path.joinpath(*parts)):
            return path.joinpath(*parts)
        for part in parts:
            name = self._of(path).get(unicodedata.normalize("NFC", part))
            if name is None:
                return None
            path /= name
        return path

    def _of(self, folder: Path) -> dict[str, str]:
        """Return names in NFC, and images' names without suffix, -> names on the disk."""
        if folder not in self._names:
            on_disk = sorted(os.listdir(folder)) if folder.is_dir() else []
            images = [name for name in on_disk if PurePosixPath(name).suffix.lower() in FORMATS]
            bare = {unicodedata.normalize("NFC", PurePosixPath(name).stem): name for name in images}
            self._names[folder] = bare | {unicodedata.normalize("NFC", name): name for name in on_disk}
        return self._names[folder]
