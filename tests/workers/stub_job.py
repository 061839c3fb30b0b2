"""A stub of ``toolkit.runs.job``, for tests whose subject is not what a run does.

Its seed decides how a run ends; otherwise it has a metric that is best at a learning rate of 0.01.
"""

from __future__ import annotations

import fcntl
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

NAME = "toolkit.runs.job"


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stub in the place of the module."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self) if name == NAME else None

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["execute"] = execute


def install() -> None:
    """Put the stub into the place of the module, in this process."""
    sys.meta_path.insert(0, Finder())


def execute(run: Any, config: Any, overrides: list[str], rank: int | None) -> None:
    folder = Path(run.run_dir)
    hold(folder)
    facts = {"pid": os.getpid(), "group": os.getpgrp(), "keras": os.environ.get("KERAS_BACKEND")}
    facts |= {"config": config, "overrides": overrides}
    (folder / "facts.json").write_text(json.dumps(facts))
    with open(folder / "begun", "a") as file:
        file.write(f"{os.environ.get('OMP_NUM_THREADS')}\n")
    if run.seed in ENDS:
        ENDS[run.seed]()
    if run.seed == 9:
        wait_for_signals(folder)
    measure(run, folder)


def hold(folder: Path) -> None:
    """Lock the folder as a run does, until the process ends."""
    from toolkit.errors import RunError

    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / ".lock", "a+")  # noqa: SIM115
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RunError("in use by another run") from None
    sys.modules[NAME].__dict__["lock"] = lock


def fail() -> NoReturn:
    from toolkit.errors import RunError

    raise RunError("the loss is not finite")


def find_bad_data() -> NoReturn:
    from toolkit.errors import DataError

    raise DataError(["a.wav: empty", "b.wav: cut off"], "the data is bad:")


def crash() -> NoReturn:
    raise ZeroDivisionError("division by zero")


def be_interrupted() -> NoReturn:
    from toolkit.errors import Interrupted

    raise Interrupted(15, "a run")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> NoReturn:
    sys.exit(7)


ENDS: dict[int, Callable[[], Any]] = {
    1: fail,
    2: find_bad_data,
    3: crash,
    4: be_interrupted,
    5: be_killed,
    6: leave,
}


def heard(*signums: int) -> list[int]:
    """A list to which these signals are added when they arrive."""
    signals: list[int] = []
    for signum in signums:
        signal.signal(signum, lambda number, _: signals.append(number))
    return signals


def wait_for_signals(folder: Path) -> NoReturn:
    """Take up to 30 seconds, and count the signals that ask the run to stop."""
    from toolkit.errors import Interrupted

    asked = heard(signal.SIGTERM, signal.SIGINT)
    (folder / "waiting").touch()
    for _ in range(300):
        time.sleep(0.1)
        if asked:
            break
    time.sleep(0.3)
    (folder / "asked").write_text(json.dumps(asked))
    raise Interrupted(asked[0])


def measure(run: Any, folder: Path) -> None:
    """Leave logs and results; with a learning rate above 1, which is hopeless, after up to five seconds."""
    error = abs(run.optimizer.lr - 0.01) + run.seed / 1000
    row = {"split": "validation", "loss": 1.0}
    rows = [row | {"step": 10 * n, "epoch": n, "cer": error / n} for n in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if run.optimizer.lr > 1:
        wait_to_be_stopped()
    metrics = {"validation": {"cer": error, "loss": 1.0}, "test": {"cer": 2 * error}}
    results = {"metrics": metrics, "examples_per_second": 1 / run.optimizer.lr, "parameters": 7}
    (folder / "results.json").write_text(json.dumps(results))


def wait_to_be_stopped() -> None:
    from toolkit.errors import Interrupted

    asked = heard(signal.SIGTERM)
    for _ in range(50):
        time.sleep(0.1)
        if asked:
            raise Interrupted(15)
