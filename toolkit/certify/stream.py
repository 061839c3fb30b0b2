"""Recordings: one file of named arrays a step, written by one process and read by another while both go on.

A writer waits when it is ahead of its reader, who deletes what was read, so a recording of any length takes the room of
a few steps. Files are numpy's ``.npz`` (read without pickle), which keep the order of the names.
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

AHEAD = 2  # steps that may lie on the disk, unread
PAUSE = 0.01  # seconds between two looks at the disk
STOPPED = "stopped.txt"


class Stopped(Exception):
    """A recording ends before its last step, and why."""


class Writer:
    """Writes a recording into ``folder``.

    Args:
        ahead: steps to be written before the reader takes the first of them; None: all of them.
    """

    def __init__(self, folder: Path, ahead: int | None = AHEAD) -> None:
        self.folder, self.ahead, self.parent = folder, ahead, os.getppid()
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        while self.ahead is not None and sum(1 for _ in self.folder.glob("[0-9]*.npz")) >= self.ahead:
            if os.getppid() != self.parent:
                raise SystemExit(1)  # nobody is left to read it
            time.sleep(PAUSE)
        beside = self.folder / f".{step}.npz"
        np.savez(beside, **arrays)  # type: ignore[arg-type]
        os.replace(beside, _path(self.folder, step))

    def stop(self, why: str) -> None:
        """Say that no more steps come."""
        beside = self.folder / f".{STOPPED}"
        beside.write_text(why, "utf-8")
        os.replace(beside, self.folder / STOPPED)


class Reader:
    """Reads a recording, step by step.

    Args:
        folder: of the recording.
        process: that writes it, and where its messages go; None: it is complete.
        keep: leave the files.
    """

    def __init__(
        self, folder: Path, process: subprocess.Popen[bytes] | None = None, log: Path | None = None, keep: bool = False
    ) -> None:
        self.folder, self.process, self.log, self.keep = folder, process, log, keep

    def read(self, step: int) -> Arrays:
        """The arrays of a step, in the order in which they were written.

        Raises:
            Stopped: the recording ends before, for a reason that it gives.
            RunError: its process failed.
        """
        path = _path(self.folder, step)
        while not path.exists():
            ended = self.process is None or self.process.poll() is not None
            if (self.folder / STOPPED).exists():
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
        """What its process said last."""
        lines = self.log.read_text("utf-8", "replace").strip().splitlines() if self.log and self.log.exists() else []
        return RunError([*lines[-15:]] or ["it said nothing"], f"the process of {self.folder.name} failed:")

    def finish(self) -> None:
        """Wait for the end of the process.

        Raises:
            RunError: it failed.
        """
        if self.process is not None and self.process.wait():
            raise self.failure()


def _path(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}.npz"
