"""The errors that a user can mend. The command line prints them without a traceback and exits with ``code``."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

# what a disk, a quota or a permission may say to a run that writes
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class UserError(Exception):
    """Something the user can mend: one clear line a problem.

    Args:
        problems: one line each: which file, record or key; what was found; what was expected; how to mend it.
        headline: one line above them.
    """

    code = 2

    def __init__(self, problems: Sequence[str] | str, headline: str = "") -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.headline = headline
        super().__init__("\n".join(([headline] if headline else []) + self.problems))


class ConfigError(UserError):
    """A config that cannot be run."""


class DataError(UserError):
    """Data that cannot be trained on."""


class RunError(UserError):
    """The run failed on the way (a full disk, a loss that is not finite)."""

    code = 1


class Interrupted(Exception):
    """A signal asked the run to stop; a checkpoint was left. ``code`` is 128 + the signal's number."""

    def __init__(self, signum: int, folder: object) -> None:
        self.code = 128 + signum
        super().__init__(f"interrupted by signal {signum}; a checkpoint was left, go on with resume={folder}")


def listed(names: Sequence[str], most: int = 20) -> str:
    """The first names of many, in one line."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def disk_error(error: OSError, path: object, need: int | None = None) -> RunError:
    """One line about a file that could not be written.

    Args:
        error: what the system said.
        path: the file, if the error does not name one itself.
        need: bytes that were to be written, where that is known.
    """
    path = error.filename or path
    needs = "" if need is None else f"needs {need:,} bytes, "
    return RunError(f"{path}: {error.strerror or error}; {needs}{room(Path(str(path)))}")


def room(path: Path) -> str:
    """How many bytes are free where ``path`` is, or would be."""
    there = next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))
    return f"{shutil.disk_usage(there).free:,} are free"


@contextlib.contextmanager
def writing(path: object, need: int | None = None) -> Iterator[None]:
    """Turns what the system says about ``path`` into a :class:`RunError` that names it, for file objects do not."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path, need) from error


@contextlib.contextmanager
def reading(path: object, what: str) -> Iterator[None]:
    """Turns whatever comes of reading a missing or damaged file that a run has learned into one message.

    Args:
        path: the file.
        what: is read from it.

    Raises:
        DataError: naming both.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{path}: no {what} can be read ({reason}), expected what a run has learned") from error
