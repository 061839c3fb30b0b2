"""Starts runs that are going to be killed: ``python -m tests.faults.child BACKEND``.

Each line of standard input is an order, ``{"arguments": [...], "log": FILE, "phase": FILE}``. A process is made for it
that does what ``python -m toolkit.run ARGUMENTS`` does, and its id is answered; then, when it has ended, its exit code,
negative for a signal. The framework is imported once, before, since that takes most of the time of a small run;
with ``"cold": true`` the process is a new Python that imports it all itself. ``phase`` says what the run is at.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# what a run imports on its way, beside its framework
ON_THE_WAY = (
    "hydra omegaconf rich.progress rich.table tensorboardX matplotlib.pyplot sacrebleu soundfile sentencepiece PIL"
)
PHASES = ("start-up", "step", "validation", "save", "final evaluation")


def watch(file: str) -> None:
    """Keep the place in ``PHASES`` of what this process is at in the first byte of ``file``."""
    from toolkit.runs import job
    from toolkit.runs.folder import RunFolder
    from toolkit.training import loop
    from toolkit.training.session import Session

    with open(file, "r+b") as handle:
        marks = mmap.mmap(handle.fileno(), 1)

    def during(owner: Any, name: str, phase: str, then: str = "") -> None:
        inner = getattr(owner, name)

        def marked(*args: Any, **kwargs: Any) -> Any:
            before = marks[0]
            marks[0] = PHASES.index(phase)
            try:
                return inner(*args, **kwargs)
            finally:
                marks[0] = PHASES.index(then) if then else before

        setattr(owner, name, marked)

    during(loop, "fit", "step", "final evaluation")
    during(Session, "validate", "validation")
    during(RunFolder, "save", "save")
    during(job, "_finish", "final evaluation", "final evaluation")


def work(order: dict[str, Any]) -> int:
    """Be the run."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.setsid()
    watch(order["phase"])
    from toolkit import run

    return run.run(order["arguments"])


def start(order: dict[str, Any]) -> int:
    """Make the process of an order, and return its id."""
    Path(order["phase"]).write_bytes(b"\0")
    if order.get("cold"):
        command = [sys.executable, "-m", "tests.faults.child", "--cold", json.dumps(order)]
        return subprocess.Popen(command).pid
    pid = os.fork()
    if pid == 0:
        sys.exit(work(order))
    return pid


def main(backend: str) -> None:
    import importlib

    from toolkit.config import build

    build.isolate(backend)
    ours = ("config.schema", "runs.job", "data.speech", "data.translation", "data.images", f"training.{backend}")
    for name in (*(f"toolkit.{name}" for name in ours), *ON_THE_WAY.split()):
        importlib.import_module(name)
    print("ready", flush=True)
    while line := os.read(0, 1 << 16):  # one order at a time, so a read is a line
        pid = start(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--cold":
        sys.exit(work(json.loads(sys.argv[2])))
    main(sys.argv[1])
