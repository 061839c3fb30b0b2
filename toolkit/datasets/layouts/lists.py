"""Lists of image files and their labels: tables with delimiters, JSON lines, ``FILE CLASS`` lines.

A table may lack its header: then its first column has the files and its second the labels.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from toolkit.data.media.image import FORMATS
from toolkit.data.problems import Problem
from toolkit.data.sources.folder import ALIASES
from toolkit.data.sources.lines import read_lines
from toolkit.datasets.layouts.layout import split_in
from toolkit.datasets.layouts.records import on_disk
from toolkit.datasets.layouts.tables import DELIMITERS, delimited, first_line, first_object, json_lines, unreadable

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
        header: the first line has the names.
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
        """True if the list has files and labels."""
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


def form_of(file: Path) -> Form:
    """Return the form of a list by its ending and its first line."""
    first, suffix = first_line(file), file.suffix
    if suffix.lower() in JSON_LINES:
        return Form(None, tuple(name.lower() for name in first_object(file)))
    tables = [(delimiter, [cell.strip() for cell in _cells(first, delimiter)]) for delimiter in DELIMITERS]
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
    form = form_of(file)
    if problem := unreadable(file, where):
        yield problem
    elif not form.complete:
        columns = ", ".join(name for name in form.columns if name)[:200] or "an empty file"
        yield Problem("missing column", f"{where}, line 1", f"found {columns}; {EXPECTED}", fatal=True)
    elif not form.header:
        yield from _without_header(file, where, form)
    else:
        rows = json_lines(file, where) if form.delimiter is None else delimited(file, where, "file_name and label")
        for row in rows:
            if isinstance(row, Problem):
                yield row
            else:
                yield _entry(form, row[0], {str(name).lower(): value for name, value in row[1].items()})


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


def _without_header(file: Path, where: str, form: Form) -> Iterator[Entry | Problem]:
    """Yield the entries of a table that has files in its first column and labels in its second."""
    lines = read_lines(file, where)
    if isinstance(lines, Problem):
        yield lines
        return
    for number, line in enumerate(lines, 1):
        cells = _cells(line, form.delimiter) if form.delimiter else line.rsplit(None, 1)
        if cells and len(cells) != len(form.columns):
            message = f"{len(cells)} fields, the first line has {len(form.columns)}"
            yield Problem("bad line", f"{where}, line {number}", message)
        elif cells:
            yield _entry(form, f"{where}, line {number}", dict(zip(form.columns, cells, strict=True)))


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def find(bases: Sequence[Path], name: str) -> Path | None:
    """Return the path of a file, or of a dangling link, below one of the folders; None if there is none.

    A list may have a name in another Unicode form than the disk, with the separators of Windows, or without suffix.
    """
    spellings = [name] if "/" in name else list(dict.fromkeys((name, name.replace("\\", "/"))))
    if PurePosixPath(name).suffix.lower() not in FORMATS:
        spellings += [f"{name}{form}" for suffix in FORMATS for form in (suffix, suffix.upper())]
    paths = (on_disk(base, spelling) for spelling in spellings for base in bases)
    return next((path for path in paths if os.path.lexists(path)), None)
