"""Small whole runs to be killed, and what two of them that ought to be equal differ in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import made, tiny
from tests.support.backend import ROOT, SETTINGS, Backend, Job
from tests.workers.killable import PHASES
from toolkit.runs import checkpoint

KILLABLE = "tests.workers.killable"
STEPS = 40
# Shuffling is always on; here are dropout, augmentation and accumulation. Translation has none of the second.
SHAPE = [
    f"trainer.max_steps={STEPS}",
    "trainer.accumulate=2",
    "trainer.checkpoint_every=3",
    "trainer.validate_every=2",
    "trainer.keep=2",
    "trainer.ema_decay=0.9",
    "optimizer.lr=0.01",
    "model.dropout=0.2",
]
OWN = {
    "asr": [],  # SpecAugment is on by default
    "translation": ["task.beam_width=2"],
    "image_classification": [
        "features.flip=0.5",
        "features.crop=pad",
        "features.padding=2",
        "features.erase.probability=0.5",
    ],
}
DOMAIN = {"asr": "speech", "translation": "translation", "image_classification": "images"}


def arguments(recipe: str, backend: str, data: Path, folder: Path, *overrides: str) -> list[str]:
    """The command line of a small run, the same whenever it is given: it goes on where a run was begun."""
    option, make = made.FOLDERS[DOMAIN[recipe]]
    source = data / option
    if not source.exists():
        make(source, train=75)  # an odd batch at an epoch's end
    fixed = [f"recipe={recipe}", f"backend={backend}", f"dataset={option}", f"dataset.path={source}"]
    own = [*tiny.components(*fixed), *tiny.SHORT, *SHAPE, *OWN[recipe]]
    return [*fixed, *own, f"run_dir={folder}", "resume=auto", *overrides]


class Starter:
    """Starts runs with one backend.

    Args:
        server: Forks them from a process that has imported the framework.
        work: For the data, the cache and the phase of the current run.
    """

    def __init__(self, server: Backend, work: Path) -> None:
        self.server, self.work, self.backend = server, work, server.backend

    def begin(self, arguments: list[str], log: Path, cold: bool = False) -> Attempt:
        """Begin a run.

        Args:
            log: Receives what it writes.
            cold: Start a new Python, which imports the framework itself.
        """
        phase = self.work / f"{self.backend}.phase"
        phase.write_bytes(b"\0")
        words, cache = [str(phase), *arguments], {"TOOLKIT_CACHE": str(self.work / "cache")}
        if not cold:
            return Attempt(self.server.start(KILLABLE, *words, cwd=ROOT, env=cache, output=log), phase)
        with open(log, "ab") as output:
            command = [sys.executable, "-m", KILLABLE, *words]
            environment = os.environ | SETTINGS | cache
            return Attempt(
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
                ),
                phase,
            )


class Attempt:
    """One process of a run."""

    def __init__(self, process: Job | subprocess.Popen[bytes], phase: Path) -> None:
        self.process, self._phase, self.began = process, phase, time.monotonic()

    @property
    def running(self) -> bool:
        return alive(self.process.pid)

    @property
    def phase(self) -> str:
        return PHASES[self._phase.read_bytes()[0]]

    @property
    def children(self) -> set[int]:
        """Its loader workers, and whatever else it has started."""
        return set(descendants(self.process.pid))

    def wait(self) -> int:
        """The exit code; negative for a signal."""
        return self.process.wait(600)

    def kill(self) -> None:
        self.process.kill()


def descendants(pid: int) -> Iterator[int]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, found):
        yield child
        yield from descendants(child)


def alive(pid: int) -> bool:
    """Whether there is such a process, and not only its exit code, which nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(pids: set[int], seconds: float = 10) -> bool:
    """Whether these processes end by themselves in time; what is left is killed."""
    until = time.monotonic() + seconds
    while (left := {p for p in pids if alive(p)}) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return not left


def until(condition: Callable[[], bool], seconds: float = 300) -> bool:
    """Wait for something that may last a moment only; returns whether it came."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.003)  # a process that looks without pause takes the machine from the one that it looks at
    return False


def taken(folder: Path) -> int:
    """The optimizer steps that a run has done."""
    log = folder / "examples.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def newest(folder: Path) -> int:
    """The step of the last checkpoint of a run; -1 where there is none."""
    found = checkpoint.find(folder / "checkpoints", "last")
    return int(found.name.strip(".").removeprefix("step-").removesuffix(".old")) if found else -1


def resumed(folder: Path) -> int:
    """The step from which a run last went on; -1 where it began."""
    lines = (folder / "run.log").read_text().splitlines() if (folder / "run.log").exists() else []
    found = [line for line in lines if line.startswith("resuming from ")]
    return int(found[-1].rpartition(" ")[2]) if found else -1


def differences(folder: Path, twin: Path) -> list[str]:
    """What a finished run has otherwise than its twin, bit by bit; times and speeds are left out."""
    found = []
    for which in ("last", "best"):
        a, b = (checkpoint.load(checkpoint.find(f / "checkpoints", which)) for f in (folder, twin))
        found += [f"{which}: {x}" for x in _arrays(a.state, b.state)]
        found += [f"{which}: progress {a.progress} {b.progress}"] if a.progress != b.progress else []
    for name, read in (("metrics.jsonl", log), ("examples.jsonl", Path.read_bytes), ("results.json", _measured)):
        found += [name] if read(folder / name) != read(twin / name) else []
    files = [sorted(p.relative_to(f) for p in (f / "predictions").rglob("*")) for f in (folder, twin)]
    found += ["names of the predictions"] if files[0] != files[1] else []
    found += [str(p) for p in files[1] if (folder / p).read_bytes() != (twin / p).read_bytes()]
    return found


def _arrays(a: checkpoint.State, b: checkpoint.State) -> Iterator[str]:
    for part in ("model", "optimizer", "ema"):
        x, y = getattr(a, part), getattr(b, part)
        if x.keys() != y.keys():
            yield f"names of {part}"
        elif other := [k for k in x if x[k].dtype != y[k].dtype or not np.array_equal(x[k], y[k])]:
            yield f"{part}: {other[0]} and {len(other) - 1} more"


def log(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "examples_per_second")} for row in rows]


def _measured(file: Path) -> Any:
    return json.loads(file.read_text())["metrics"]


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder
