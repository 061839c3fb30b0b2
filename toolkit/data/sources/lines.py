"""Text files as lines."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from toolkit.data.problems import Problem
from toolkit.errors import DataError

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"  # the byte-order mark
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_lines(file: Path, where: str) -> list[str] | Problem:
    """Read the lines of a text file, which may be gzipped; see :func:`split_lines`.

    Args:
        file: to read.
        where: its name in messages.

    Returns:
        the lines, or the problem with the file.
    """
    from toolkit.data.sources import fetch  # its imports would slow down the composition of every config

    try:
        data = file.read_bytes()
        data = fetch.gunzip(data, where) if file.suffix == ".gz" else data
    except (EOFError, OSError, zlib.error) as error:
        return unreadable(where, error)
    return split_lines(data, where)


def split_lines(data: bytes, where: str) -> list[str] | Problem:
    """Split a text into lines that end with LF or CR LF, without a byte-order mark at its start.

    Only LF ends a line: a break at a form feed or a Unicode line separator inside a sentence would misalign all lines
    after it with their translations.

    Args:
        data: the text.
        where: its name in messages.

    Returns:
        the lines, with bytes that are not UTF-8 decoded by ``surrogateescape``, or the problem with the text.
    """
    if data[:2] in UTF16:
        return utf16(where)
    lines = data.decode("utf-8", "surrogateescape").removeprefix(BOM).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def stream_lines(stream: Iterable[bytes], where: str) -> Iterator[str]:
    """Yield the lines of :func:`split_lines` as they are read.

    Args:
        stream: lines with their ends, as a binary file yields them.
        where: its name in messages.

    Raises:
        DataError: the text is UTF-16.
    """
    for number, line in enumerate(stream):
        if number == 0:
            if line[:2] in UTF16:
                raise DataError(str(utf16(where)))
            line = line.removeprefix(codecs.BOM_UTF8)
        yield line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")


def unreadable(where: str, error: Exception) -> Problem:
    """Return the problem with a file that raised an error while it was read."""
    if isinstance(error, OSError) and error.strerror:
        return Problem("unreadable file", where, f"{error.strerror}, expected a readable file", fatal=True)
    return Problem("damaged file", where, f"damaged or truncated gzip file ({error}); copy it again", fatal=True)


def utf16(where: str) -> Problem:
    """Return the problem with a text in UTF-16."""
    message = "it begins with the byte-order mark of UTF-16; save the file as UTF-8"
    return Problem("not UTF-8", where, message, fatal=True)
