"""The command with its ranks and its jobs forked, not started: ``python -m tests.workers.forked ARGUMENTS``.

What is started imports everything again, which takes longer than a short training.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import IO, NoReturn

from toolkit import run
from toolkit.sweeps import launchers
from toolkit.training import processes

HANDLED = (signal.SIGTERM, signal.SIGINT)


class Forked:
    """A rank of a run or a job of a sweep, in the place of :class:`subprocess.Popen`.

    It ends with its parent, as one that is started does.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        self.returncode: int | None = None
        end_with_parent = processes.ending_with_parent()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # the parent's handlers are not the child's
        self.pid = os.fork()
        if self.pid == 0:
            become(arguments, env, stdout, stderr, end_with_parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def become(
    arguments: Sequence[str],
    env: Mapping[str, str],
    stdout: IO[bytes] | None,
    stderr: IO[bytes] | None,
    end_with_parent: Callable[[], object] | None,
) -> NoReturn:
    """Be the child to the end, without the stack of the process that was forked."""
    code = 1
    try:
        os.setsid()
        if end_with_parent:
            end_with_parent()
        for number, file in ((1, stdout), (2, stderr)):
            if file is not None:
                os.dup2(file.fileno(), number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        os.environ.clear()
        os.environ.update(env)
        code = run.run(list(arguments))
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        code = 1
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    processes.start = launchers.start = Forked  # type: ignore[assignment]
    sys.exit(run.run(sys.argv[1:]))
