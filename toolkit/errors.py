"""Errors that the user can fix. The command line prints them without a traceback and exits with ``code``."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

# errors of writing that a full disk, a quota or missing permissions cause
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
STOPPING = (signal.SIGINT, signal.SIGTERM)  # signals by which a user or a scheduler stops a run


class UserError(Exception):
    """An error that the user can fix, with one line for each problem.

    Args:
        problems: one line each: the file, record or key, the value found, the value expected, and the fix.
        headline: one line above them.
    """

    code = 2

    def __init__(self, problems: Sequence[str] | str, headline: str = "") -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.headline = headline
        super().__init__("\n".join(([headline] if headline else []) + self.problems))


class ConfigError(UserError):
    """The config cannot be run."""


class DataError(UserError):
    """The data cannot be used."""


class RunError(UserError):
    """The run failed after it started (a full disk, a loss that is not finite)."""

    code = 1


class Interrupted(Exception):
    """A signal stopped the run after it saved a checkpoint; ``code`` is 128 + the signal's number."""

    def __init__(self, signum: int, folder: object) -> None:
        self.code = 128 + signum
        super().__init__(f"interrupted by signal {signum}; a checkpoint was saved; continue with resume={folder}")


def listed(names: Sequence[str], most: int = 20) -> str:
    """List the first ``most`` names in one line, and count the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def disk_error(error: OSError, path: object, need: int | None = None) -> RunError:
    """Return an error of one line about a file that could not be written.

    Args:
        error: raised by the system.
        path: the file, if ``error`` names none.
        need: bytes to be written, if known.
    """
    path = error.filename or path
    needs = "" if need is None else f"needs {need:,} bytes, "
    return RunError(f"{path}: {error.strerror or error}; {needs}{room(Path(str(path)))}")


def room(path: Path) -> str:
    """Return, for a message, how many bytes are free on the disk of ``path``, which need not exist."""
    existing = next((p for p in (path, *path.absolute().parents) if os.path.exists(p)), Path("/"))  # which never raises
    return f"{shutil.disk_usage(existing).free:,} bytes are free"


@contextlib.contextmanager
def writing(path: object, need: int | None = None) -> Iterator[None]:
    """Turn an ``OSError`` about ``path`` into a :class:`RunError` that names it; those of file objects name no file."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path, need) from error


@contextlib.contextmanager
def reading(path: object, content: str) -> Iterator[None]:
    """Turn an error from reading a file of the learned state into one message.

    Args:
        path: the file.
        content: name of its content, for the message.

    Raises:
        DataError: the message names both.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{path}: cannot read the {content} ({reason}); expected a file written by a run") from error
