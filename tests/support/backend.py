"""Run programs and functions with a framework that is imported once: the fixture ``backends``.

    found = backends.compute("ctc", "losses", arrays)        # tests/workers/ctc/{torch,tf}.py, losses(arrays) -> arrays
    done = backends["tf"].run("toolkit.run", *arguments)     # as python -m toolkit.run ARGUMENTS, output captured
    job = backends["torch"].start("toolkit.run", *arguments) # the same, to be watched, signalled or killed

Each call gets a process of its own, forked from ``tests/workers/serve.py``. There is one such server for each worker of
pytest-xdist and each backend. A job that fails makes the test fail with the end of what it wrote.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import toolkit

ROOT = Path(toolkit.__file__).parents[1]
BACKENDS = ("torch", "tf")
SETTINGS = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
TAIL = 6000  # characters of a failed job's output that are shown

Arrays = dict[str, np.ndarray]


class Job:
    """One process.

    Args:
        files: its standard output and standard error.
        fifo: where the server answers.
    """

    def __init__(self, files: tuple[Path, Path], fifo: int) -> None:
        self._files, self._fifo, self._answers = files, fifo, b""
        self.returncode: int | None = None
        begun = self._read(lines=1, timeout=60)
        assert begun, "the server started no process: see server.log beside the folders of its jobs"
        self.pid = int(begun[0])

    @property
    def stdout(self) -> str:
        return self._files[0].read_text("utf-8", "replace")

    @property
    def stderr(self) -> str:
        return self._files[1].read_text("utf-8", "replace")

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the job runs."""
        return self._ended(timeout=0)

    def wait(self, timeout: float = 300) -> int:
        """Return the exit code, once the job has ended.

        Raises:
            AssertionError: It did not end in time and was killed, with all that it had started.
        """
        code = self._ended(timeout)
        if code is None:
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"the job runs longer than {timeout} s:\n{self.stdout[-TAIL:]}{self.stderr[-TAIL:]}")
        return code

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float) -> int | None:
        if self.returncode is None and len(answers := self._read(lines=2, timeout=timeout)) == 2:
            self.returncode = int(answers[1])
            os.close(self._fifo)
        return self.returncode

    def _read(self, lines: int, timeout: float) -> list[bytes]:
        """Wait until there are ``lines`` answers or the time is over, and return the answers so far."""
        end = time.monotonic() + timeout
        while self._answers.count(b"\n") < lines:
            if not select.select([self._fifo], [], [], max(0.0, end - time.monotonic()))[0]:
                break
            answer = os.read(self._fifo, 100)
            assert answer, "the process that watches the job has ended"
            self._answers += answer
        return self._answers.splitlines()


class Backend:
    """The client of one server.

    Args:
        backend: ``torch``, ``tf`` or ``neutral``.
        folder: for the files of its jobs.
    """

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend, self._folder, self._numbers = backend, folder, itertools.count()
        folder.mkdir()
        with open(folder / "server.log", "wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.workers.serve", backend],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=os.environ | SETTINGS,
            )
        assert self._server.stdout and self._server.stdout.readline() == b"ready\n", (folder / "server.log").read_text()

    def close(self) -> None:
        assert self._server.stdin and self._server.stdout
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def start(
        self,
        module: str,
        *arguments: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        input: str = "",
        output: Path | None = None,
    ) -> Job:
        """Begin what ``python -m MODULE ARGUMENTS`` does.

        Args:
            env: Additions to this process's environment.
            input: Standard input.
            output: A file to which both outputs are appended, in the place of one for each.
        """
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        files = {name: folder / name for name in ("stdin", "stdout", "stderr")}
        if output:
            files |= {"stdout": output, "stderr": output}
        files["stdin"].write_text(input, "utf-8")
        for name in ("stdout", "stderr"):
            files[name].touch()
        os.mkfifo(folder / "answers")
        fifo = os.open(folder / "answers", os.O_RDONLY | os.O_NONBLOCK)
        order = {
            "module": module,
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd or Path.cwd()),
            "environment": os.environ | SETTINGS | dict(env or {}),
            "answers": str(folder / "answers"),
            **{name: str(file) for name, file in files.items()},
        }
        assert self._server.stdin
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        self._server.stdin.flush()
        return Job((files["stdout"], files["stderr"]), fifo)

    def run(
        self,
        module: str,
        *arguments: object,
        code: int = 0,
        timeout: float = 300,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        input: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Do what ``python -m MODULE ARGUMENTS`` does and return its output.

        Raises:
            AssertionError: Its exit code is not ``code``.
        """
        job = self.start(module, *arguments, cwd=cwd, env=env, input=input)
        found = job.wait(timeout)
        assert found == code, f"exit code {found}:\n{job.stdout[-TAIL:]}{job.stderr[-TAIL:]}"
        return subprocess.CompletedProcess([module, *map(str, arguments)], found, job.stdout, job.stderr)


class Backends:
    """A :class:`Backend` by name, each started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, dict[str, Backend]()

    def __getitem__(self, backend: str) -> Backend:
        if backend not in self._started:
            self._started[backend] = Backend(backend, self._folder / backend)
        return self._started[backend]

    def __enter__(self) -> Backends:
        return self

    def __exit__(self, *_: object) -> None:
        for backend in self._started.values():
            backend.close()

    def compute(self, worker: str, function: str, given: Arrays, names: Sequence[str] = BACKENDS) -> dict[str, Arrays]:
        """Run a function of ``tests/workers/WORKER/{torch,tf}.py``, both at the same time: backend -> named arrays."""
        folder = self._folder / f"{worker}.{function}.{len(list(self._folder.iterdir()))}"
        folder.mkdir()
        np.savez(folder / "given.npz", **given)  # type: ignore[arg-type]
        jobs = {}
        for backend in names:
            words = (f"tests.workers.{worker}.{backend}", function, folder / "given.npz", folder / f"{backend}.npz")
            jobs[backend] = self[backend].start("tests.workers.call", *words, cwd=ROOT)
        for backend, job in jobs.items():
            assert job.wait(500) == 0, f"{worker}.{function} with {backend}:\n{job.stderr[-TAIL:]}"
        return {backend: dict(np.load(folder / f"{backend}.npz")) for backend in names}
