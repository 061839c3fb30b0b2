"""Recordings of trainings: one file of named arrays per step, which one process writes while another reads.

The reader deletes the files that it has read, and a writer that is too far ahead waits for it, so a recording of any
length takes the disk space of a few steps. Files are ``.npz`` (read without pickle), which keep the order of the names.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from toolkit.errors import RunError

Arrays = dict[str, np.ndarray]

AHEAD = 2  # unread steps on the disk
PAUSE = 0.01  # seconds between two looks at the disk
STOPPED = "stopped.txt"


class Stopped(Exception):
    """A recording ends before its last step, for the reason in the message."""


class Writer:
    """Writer of a recording.

    Args:
        folder: of the recording.
        ahead: unread steps at which the writer waits for the reader; None: it never waits.
    """

    def __init__(self, folder: Path, ahead: int | None = AHEAD) -> None:
        self.folder, self.ahead, self.parent = folder, ahead, os.getppid()
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of a step; wait first while ``ahead`` steps are unread."""
        while self.ahead is not None and sum(1 for _ in self.folder.glob("[0-9]*.npz")) >= self.ahead:
            if os.getppid() != self.parent:
                raise SystemExit(1)  # the parent, which reads it, has ended
            time.sleep(PAUSE)
        beside = self.folder / f".{step}.npz"
        np.savez(beside, **arrays)  # type: ignore[arg-type]
        os.replace(beside, _path(self.folder, step))

    def stop(self, why: str) -> None:
        """End the recording before its last step, for the reason ``why``."""
        beside = self.folder / f".{STOPPED}"
        beside.write_text(why, "utf-8")
        os.replace(beside, self.folder / STOPPED)


class Reader:
    """Reader of a recording, step by step.

    Args:
        folder: of the recording.
        process: the process that writes it; None: the recording is complete.
        log: file with the output of ``process``.
        keep: do not delete the files.
    """

    def __init__(
        self, folder: Path, process: subprocess.Popen[bytes] | None = None, log: Path | None = None, keep: bool = False
    ) -> None:
        self.folder, self.process, self.log, self.keep = folder, process, log, keep

    def read(self, step: int) -> Arrays:
        """Return the arrays of a step, in the order in which they were written.

        Raises:
            Stopped: the recording ends before this step.
            RunError: the writing process failed.
        """
        path = _path(self.folder, step)
        while not path.exists():
            ended = self.process is None or self.process.poll() is not None
            if (self.folder / STOPPED).exists() and not path.exists():  # in this order: the step is written first
                raise Stopped((self.folder / STOPPED).read_text("utf-8"))
            if ended and not path.exists():
                raise self.failure()
            time.sleep(PAUSE)
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        if not self.keep:
            path.unlink()
        return arrays

    def failure(self) -> RunError:
        """Return an error with the last lines of the process."""
        lines = self.log.read_text("utf-8", "replace").strip().splitlines() if self.log and self.log.exists() else []
        return RunError([*lines[-15:]] or ["no output"], f"the process of {self.folder.name} failed:")

    def finish(self) -> None:
        """Wait for the process to end.

        Raises:
            RunError: the process failed.
        """
        if self.process is not None and self.process.wait():
            raise self.failure()


def _path(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}.npz"
