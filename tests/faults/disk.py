"""Runs on a disk that fails at one operation, each of them in turn: ``python -m tests.faults.disk WORK FAULT GUARD``.

A run of the neutral loop, on an engine without a framework, is forked for each operation on a file that it does: an
opening for writing, a write, a sync, a renaming, a truncation, a removal, a new folder. At that operation

- ``kill``: the process kills itself with SIGKILL, in the middle of a write;
- ``power``: all that was written since the last sync of its file is gone too, as after a loss of power;
- ``full``: this and everything later that needs space fails with ENOSPC;
- ``once``: this alone fails so, as when another program frees some room again.

Then another process goes on in that folder, undisturbed, and must end as the run that nothing happened to. What it
finds is printed as JSON. ``GUARD`` names something that is switched off, so that the tests can see themselves fail.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import gc
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import training as stand_ins
from toolkit.cli import guard
from toolkit.runs import checkpoint
from toolkit.runs.folder import RunFolder
from toolkit.training import loop
from toolkit.training.progress import Progress
from toolkit.training.session import Session

TRAIN, VALID = stand_ins.data(12), stand_ins.data(3, 1)
CALLS = ("replace", "mkdir", "unlink", "rmdir", "truncate")  # of os, beside fsync
NO_SPACE = ("full", "once")
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def live(path: Path) -> None:
    """One process of a run, from its start or from its last checkpoint to its end; as ``toolkit.runs.job`` does it."""
    folder = RunFolder(path)
    try:
        engine, at = stand_ins.Engine(), Progress()
        if checkpoint.find(folder.checkpoints, "last"):
            found = checkpoint.choose(folder.checkpoints, "last", folder.say)
            engine.load(found.state)
            at = found.progress
            checkpoint.point(folder.checkpoints, found.path.name, at)
        folder.rewind(at)
        run = stand_ins.run(max_epochs=2, validate_every=1, checkpoint_every=2, keep=1, show=0)
        loop.fit(Session(run, engine, TRAIN, VALID, stand_ins.TARGET, folder, at))
        best = checkpoint.choose(folder.checkpoints, "best", folder.say)
        folder.write_results({"step": best.progress.step, "weight": float(best.state.model["w"][0])})
    finally:
        folder.close()


class Disk:
    """Stands in for the functions that change a disk; does ``fault`` at the ``place``-th call of one of them."""

    def __init__(self, fault: str, place: int) -> None:
        self.fault, self.place, self.done = fault, place, 0
        self.synced: dict[str, int] = {}  # path -> bytes that a loss of power leaves
        self.real = {name: getattr(os, name) for name in (*CALLS, "fsync")}
        self.open = builtins.open

    def __enter__(self) -> Disk:
        for name in self.real:
            setattr(os, name, self._counted(name))
        builtins.open = self._open
        return self

    def __exit__(self, *_: Any) -> None:
        for name, function in self.real.items():
            setattr(os, name, function)
        builtins.open = self.open

    def operation(self, half: Callable[[], Any] = lambda: None, needs_space: bool = True) -> None:
        """Count one; ``half`` does it by half before a kill."""
        self.done += 1
        if self.fault in NO_SPACE:
            here = self.done == self.place or (self.done > self.place and self.fault == "full")
            if here and needs_space:
                raise OSError(FULL.errno, FULL.strerror)
        elif self.done == self.place:
            half()
            self.die()

    def die(self) -> None:
        if self.fault == "power":
            for path, size in self.synced.items():
                with contextlib.suppress(FileNotFoundError):
                    self.real["truncate"](path, min(size, os.path.getsize(path)))
        os.kill(os.getpid(), signal.SIGKILL)

    def _counted(self, name: str) -> Callable[..., Any]:
        real = self.real[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            self.operation(needs_space=name in ("fsync", "replace", "mkdir"))
            found = real(*args, **kwargs)
            if name == "fsync":
                path = os.readlink(f"/proc/self/fd/{args[0]}")
                if not os.path.isdir(path):
                    self.synced[path] = os.path.getsize(path)
            if name == "replace":
                old, new = map(str, args)
                moved = {path: size for path, size in self.synced.items() if path == old or path.startswith(old + "/")}
                self.synced = {k: v for k, v in self.synced.items() if k not in moved}
                self.synced |= {new + path.removeprefix(old): size for path, size in moved.items()}
            return found

        return call

    def _open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not set(mode) & set("wax+") or isinstance(file, int):
            return self.open(file, mode, *args, **kwargs)
        self.operation()
        found = self.open(file, mode, *args, **kwargs)
        path = os.path.abspath(file)
        self.synced.setdefault(path, os.path.getsize(path))
        if "w" in mode:
            self.synced[path] = 0
        return File(found, self)


class File:
    """A file open for writing, whose writes count."""

    def __init__(self, inner: Any, disk: Disk) -> None:
        self._inner, self._disk = inner, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: Any) -> None:
        self._inner.close()

    def __iter__(self) -> Any:
        return iter(self._inner)

    def write(self, content: Any) -> Any:
        def half() -> None:
            self._inner.write(content[: len(content) // 2])
            self._inner.flush()

        self._disk.operation(half)
        return self._inner.write(content)

    def truncate(self, size: int) -> Any:
        self._disk.operation(needs_space=False)
        return self._inner.truncate(size)


# --- what can be switched off, to see the tests fail -----------------------------------------------------------------


def _straight(folder: Path, state: Any, progress: Progress, keep: int, about: Any = None) -> Path:
    """``checkpoint.save`` without a folder beside: the files go where they are to be, after the old one is gone."""
    final = folder / f"step-{progress.step:08d}"
    for old in folder.glob("step-*"):
        shutil.rmtree(old)
    checkpoint._write_all(final, checkpoint._packed(state, progress, checkpoint.About()))
    checkpoint.point(folder, final.name, progress)
    return final


def _unsynced(path: Path, blob: bytes) -> None:
    with open(path, "wb") as file:
        file.write(blob)


def _careless(path: Path, blob: bytes) -> None:
    with contextlib.suppress(OSError):
        _unsynced(path, blob)


def _logs_unsynced(self: RunFolder, state: Any, at: Progress, keep: int) -> Path:
    at.log_bytes = dict(self._bytes)
    return checkpoint.save(self.checkpoints, state, at, keep, self._about)


GUARDS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "renaming": lambda: setattr(checkpoint, "save", _straight),
    "sync": lambda: setattr(checkpoint, "_write", _unsynced),
    "sync of the logs": lambda: setattr(RunFolder, "save", _logs_unsynced),
    "errors and reading back": lambda: (
        setattr(checkpoint, "_write", _careless),  # type: ignore[func-returns-value]
        setattr(checkpoint, "_read_back", lambda *_: None),
    )[-1],
    "rewinding": lambda: setattr(RunFolder, "rewind", lambda *_: None),
    "the last validation": lambda: setattr(Session, "validation_due", lambda self: False),
}


# --- every operation in turn -----------------------------------------------------------------------------------------


@dataclass
class End:
    """How a process ended: exit code, negative for a signal; what it said on standard error; operations it did."""

    code: int
    said: str
    done: int


def forked(path: Path, fault: str = "none", place: int = 0) -> End:
    """``live`` in a process of its own, on such a disk."""
    said, count = path.with_suffix(".err"), path.with_suffix(".count")
    pid = os.fork()
    if pid == 0:
        sink = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        disk = Disk(fault, place)

        def work() -> int:
            with disk:
                live(path)
            return 0

        code = guard.guarded(work)
        count.write_text(str(disk.done))
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return End(code, said.read_text().strip(), int(count.read_text()) if code >= 0 else place)


def left(path: Path) -> Any:
    """What a run has left that another one must have too."""
    found = checkpoint.load(checkpoint.find(path / "checkpoints", "last"))
    arrays = {k: v.tobytes() for k, v in found.state.model.items()}
    texts = [(path / name).read_text() for name in ("examples.jsonl", "results.json")]
    return arrays, found.progress, stand_ins.log(path), texts


def trial(path: Path, fault: str, place: int, whole: Any) -> str:
    """Empty if the fault cost nothing, or what went wrong."""
    ended = forked(path, fault, place)
    if fault not in NO_SPACE and ended.code != -signal.SIGKILL:
        return f"exit code {ended.code}: {ended.said}"
    if fault in NO_SPACE and ended.code != 0:  # 0: at most what nobody needs was not written
        one = len(ended.said.splitlines()) == 1 and "No space left" in ended.said and "bytes are free" in ended.said
        if ended.code != 1 or not one:
            return f"exit code {ended.code}: {ended.said}"
    elif fault in NO_SPACE:
        return "" if left(path) == whole else "went on and ended otherwise"
    after = forked(path)
    if after.code != 0:
        return f"lost: {after.said.splitlines()[-1:]}"
    return "" if left(path) == whole else "ended otherwise"


def main(work: Path, fault: str, guard: str, every: int = 1) -> dict[str, Any]:
    """Returns the number of operations of a run, and by place what went wrong; with a guard off the first suffices."""
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        live(work / "warm")  # imports what a run imports on its way, so that no fork has to
    gc.collect()
    gc.freeze()  # or every fork copies the memory of all objects when it looks at them
    operations = forked(work / "whole").done
    whole = left(work / "whole")
    GUARDS[guard]()
    wrong = {}
    for place in range(1, operations + 1, every):
        path = work / f"{place}"
        if problem := trial(path, fault, place, whole):
            wrong[place] = problem
            if guard != "none":
                break
        shutil.rmtree(path, ignore_errors=True)
    return {"operations": operations, "wrong": wrong}


if __name__ == "__main__":
    np.seterr(all="ignore")
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))))
