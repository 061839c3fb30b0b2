"""Exit codes and messages of all commands."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from toolkit.errors import UNWRITABLE, Interrupted, UserError, disk_error


def guarded(work: Callable[[], int]) -> int:
    """Call ``work`` and return its exit code, or print its error and return the exit code of that."""
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
