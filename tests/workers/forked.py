"""The command with its ranks forked, not started: ``python -m tests.workers.forked ARGUMENTS``.

Ranks that are started import the framework again, which takes longer than a short training.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import IO, NoReturn

from toolkit import run
from toolkit.training import processes


class Forked:
    """A rank, in the place of :class:`subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            become(arguments, env, stdout, stderr)

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
    arguments: Sequence[str], env: Mapping[str, str], stdout: IO[bytes] | None, stderr: IO[bytes] | None
) -> NoReturn:
    """Be a rank to the end, without the stack of the process that was forked."""
    code = 1
    try:
        os.setsid()
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)
        for number, file in ((1, stdout), (2, stderr)):
            if file is not None:
                os.dup2(file.fileno(), number)
        os.environ.clear()
        os.environ.update(env)
        code = run.run(list(arguments))
        atexit._run_exitfuncs()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    processes.__dict__["start"] = Forked
    sys.exit(run.run(sys.argv[1:]))
