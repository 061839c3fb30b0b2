"""Lists of examples: delimited text and JSON lines, as records with the line on which each begins."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from toolkit.data.problems import Problem
from toolkit.data.sources import lines as texts

DELIMITERS = ",;\t|"
LITERAL = "\t|"  # files with these delimiters have no quoting: a quote is a character of the text
HEAD = 1 << 16  # bytes of a first line

Row = tuple[str, dict[str, Any]]  # its place in the file, its fields


def first_line(file: Path) -> str:
    """Return the first line of a text file that is not blank, as far as it is in the first bytes; empty if none is."""
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError:
        return ""
    lines = head.decode("utf-8-sig", "replace").splitlines()
    return next((line for line in lines if line.strip()), "")


def first_object(file: Path) -> dict[str, Any]:
    """Return the fields of the first of a file's JSON lines; none if it is no object."""
    try:
        fields = json.loads(first_line(file) or "null")
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def delimiter(header: str) -> str:
    """Return the delimiter that is most frequent in a header; a comma if there is none."""
    return max(DELIMITERS, key=header.count)


def columns(file: Path) -> list[str]:
    """Return the names in the header of a delimited file."""
    header = first_line(file)
    return [name.strip().strip('"') for name in header.split(delimiter(header))]


def delimited(file: Path, where: str, expected: str) -> Iterator[Row | Problem]:
    """Yield the records of a file with a header, delimited by comma, semicolon, tab or bar.

    With comma and semicolon, fields may be quoted (RFC 4180); with the others, quotes are taken literally.

    Args:
        file: to read.
        where: its name in messages.
        expected: names of the columns, for the message that there is no header.
    """
    separator = delimiter(first_line(file))
    if problem := unreadable(file, where):
        yield problem
        return
    # Undecodable bytes become surrogates, so that they are reported with their line.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, strict=True, delimiter=separator, quoting=_quoting(separator))
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                # An unclosed quote swallows the lines after it, so the rest of the file is unknown.
                message = f"not valid CSV: {error}; is a quote missing or single inside a quoted text?"
                yield Problem("bad line", f"{where}, line {line}", message, fatal=bool(reader.line_num > line))
                continue
            if not row:
                continue
            if header is None:
                header = [name.strip() for name in row]
                continue
            yield _row(f"{where}, line {line}", header, row, separator)
    if header is None:
        yield Problem("empty metadata", where, f"found no header, expected {expected}", fatal=True)


def _quoting(separator: str) -> Literal[0, 3]:
    return csv.QUOTE_NONE if separator in LITERAL else csv.QUOTE_MINIMAL


def _row(at: str, header: Sequence[str], row: Sequence[str], separator: str) -> Row | Problem:
    if len(row) != len(header):
        names = {",": "a comma", ";": "a semicolon"}
        message = f"{len(row)} fields, the header has {len(header)} ({', '.join(header)})"
        hint = f"; a text with {names[separator]} needs quotes" if len(row) > len(header) and separator in names else ""
        return Problem("bad line", at, message + hint)
    return not_utf8(at, row) or (at, dict(zip(header, row, strict=True)))


def json_lines(file: Path, where: str) -> Iterator[Row | Problem]:
    """Yield the records of a file that has a JSON object in each line.

    Args:
        file: to read.
        where: its name in messages.
    """
    if problem := unreadable(file, where):
        yield problem
        return
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            at = f"{where}, line {number}"
            if problem := not_utf8(at, [line]):
                yield problem
                continue
            try:
                fields = json.loads(line)
            except json.JSONDecodeError as error:
                yield Problem("bad line", at, f"not valid JSON: {error.msg} at column {error.colno}")
                continue
            except (ValueError, RecursionError) as error:  # thousands of digits or of brackets
                yield Problem("bad line", at, f"not JSON that can be read: {error}")
                continue
            if isinstance(fields, dict):
                yield at, fields
            else:
                yield Problem("bad line", at, f"found a JSON {type(fields).__name__}, expected an object {{...}}")


def unreadable(file: Path, where: str) -> Problem | None:
    """Return the problem with a file that cannot be read or is in UTF-16; None for another one."""
    try:
        with file.open("rb") as stream:
            return texts.utf16(where) if stream.read(2) in texts.UTF16 else None
    except OSError as error:
        return texts.unreadable(where, error)


def not_utf8(where: str, texts: Sequence[str]) -> Problem | None:
    """Return the problem with texts, decoded by ``surrogateescape``, of which one is not UTF-8; None if all are."""
    for text in texts:
        for character in text:
            if "\udc80" <= character <= "\udcff":
                message = f"byte 0x{ord(character) - 0xDC00:02x} is not UTF-8; save the file as UTF-8"
                return Problem("not UTF-8", where, message)
    return None
