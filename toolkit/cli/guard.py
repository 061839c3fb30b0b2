"""Exit codes and messages of all commands."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from toolkit.errors import UNWRITABLE, Interrupted, UserError, disk_error


def guarded(work: Callable[[], int]) -> int:
    """Call ``work`` and return its exit code, or print its error and return the exit code of that."""
    _open_streams()
    outlast("stderr")  # messages that nobody reads end no command
    try:
        code = work()
        sys.stdout.flush()  # now, so that a reader that has ended is noticed here
        return code
    except UserError as error:
        return report(error)
    except Interrupted as error:
        _write(f"{error}\n")
        return error.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader has ended, as head does
        from toolkit.training.processes import silence

        silence()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in UNWRITABLE:
            _write(traceback.format_exc())
            return 1
        return report(disk_error(error, "a file of the run"))
    except Exception:
        _write(traceback.format_exc())
        return 1


class _Stream(io.TextIOWrapper):
    """Standard stream that discards what is written after its reader has ended."""

    def write(self, text: str) -> int:
        with self._discarding():
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._discarding():
            super().flush()

    @contextlib.contextmanager
    def _discarding(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            from toolkit.training.processes import silence

            silence(self.fileno())


def outlast(name: str) -> None:
    """Let this process go on when the reader of its "stdout" or "stderr" ends, as ``head`` does.

    A stream that something else has put in the place of the process's own stays.
    """
    stream = {"stdout": sys.stdout, "stderr": sys.stderr}[name]
    if stream in (sys.__stdout__, sys.__stderr__) and isinstance(stream, io.TextIOWrapper):
        lasting = _Stream(stream.buffer, stream.encoding, stream.errors, line_buffering=True)
        sys.stdout, sys.stderr = (lasting, sys.stderr) if name == "stdout" else (sys.stdout, lasting)


def _open_streams() -> None:
    """Open the null device in the place of a standard stream that is closed, and let every name be printed."""
    for descriptor in (1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def report(error: UserError) -> int:
    """Print an error that the user can fix, and return its exit code."""
    lines = [error.headline] if error.headline else []
    _write("\n".join([*lines, *(f"  {line}" if lines else line for line in error.problems), ""]))
    return error.code


def _write(text: str) -> None:
    """Write to standard error, or, in a rank of a distributed run, to the file that its parent reads."""
    from toolkit.training.processes import REPORT

    if path := os.environ.get(REPORT):
        Path(path).write_text(text, "utf-8", "backslashreplace")
    else:
        print(text, end="", file=sys.stderr)
