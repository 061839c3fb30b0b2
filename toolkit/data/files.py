"""A user's inputs that are files: one by one, or all of a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from toolkit.config.paths import expand
from toolkit.data.columns.column import Question
from toolkit.data.example import File
from toolkit.data.problems import Problem
from toolkit.errors import ConfigError


def files(inputs: Iterable[str], noun: str, suffixes: Collection[str]) -> Iterator[Question | Problem]:
    """Yield a user's inputs as files, or the problems with them.

    Args:
        inputs: paths of files, or of folders, whose files are yielded by name, those of their folders among them;
            hidden ones and those with another suffix are left out.
        noun: the word for the content of a file.
        suffixes: of such files, in lower case.

    Raises:
        ConfigError: an input is "-".
    """
    for name in inputs:
        if name == "-":
            raise ConfigError(
                f"-: standard input is not supported for a {noun}; give files, or --from - to read their names from it"
            )
        yield from _files(name, noun, suffixes)


def has_content(status: os.stat_result) -> bool:
    """Tell if a file is read for its content: a regular file or a pipe, such as the shell's ``<(...)``."""
    return stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)


def _files(name: str, noun: str, suffixes: Collection[str]) -> Iterator[Question | Problem]:
    path = Path(expand(name))
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a name with a NUL character
        yield Problem("no such file", name, f"found {_absence(path)}, expected a file with the {noun}")
        return
    except OSError as error:
        yield Problem("unreadable", name, f"{error.strerror}, expected a file with the {noun}")
        return
    if not name:
        yield Problem("no name", "''", f"found an empty name, expected a file with the {noun}")
    elif stat.S_ISDIR(status.st_mode):
        yield from _folder(name, path, noun, suffixes)
    elif has_content(status):
        yield Question(name, File(path), size=status.st_size)
    else:
        yield Problem("not a file", name, f"found a device or a socket, expected a file with the {noun}")


def _absence(path: Path) -> str:
    """Describe a path that leads to nothing."""
    try:
        return f"a link to {os.readlink(path)}, where nothing is"
    except (OSError, ValueError):
        return f"nothing at {path.absolute()}"


def _folder(name: str, folder: Path, noun: str, suffixes: Collection[str]) -> Iterator[Question | Problem]:
    """Yield the files of a folder, or a problem if there are none."""
    empty, denied = True, list[OSError]()
    for relative in _walk(folder, "", frozenset(), denied):
        if Path(relative).suffix.lower() in suffixes:
            yield from _files(os.path.join(name, relative), noun, suffixes)
            empty = False
    for error in denied:
        yield Problem("unreadable", str(error.filename), f"{error.strerror}, expected a folder to read")
    if empty and not denied:
        kinds = ", ".join(sorted(suffixes))
        yield Problem("no file", name, f"found a folder without a file for a {noun}, expected one of {kinds}")


def _walk(folder: Path, relative: str, above: frozenset[tuple[int, int]], denied: list[OSError]) -> Iterator[str]:
    """Yield the names of visible files below a folder, sorted; links that lead back up are not followed.

    Args:
        folder: to list.
        relative: its name in the results.
        above: device and inode of the folders above it.
        denied: gets the errors of folders that cannot be read.
    """
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as entries:
            listing = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        denied.append(error)
        return
    for entry in listing:
        path = os.path.join(relative, entry.name)
        if entry.is_dir():
            yield from _walk(Path(entry.path), path, above | {here}, denied)
        else:
            yield path
