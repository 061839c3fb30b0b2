"""Fork a process for each job, with a framework imported once before: ``python -m tests.workers.serve BACKEND``.

The backend is ``torch``, ``tf`` or ``neutral``; see ``NEUTRAL``.

Importing a framework takes longer than what most tests compute. A line of standard input is one job, a JSON object with

- ``module`` and ``arguments``: what ``python -m MODULE ARGUMENTS`` would run,
- ``cwd`` and ``environment`` of its process,
- ``stdin``, ``stdout`` and ``stderr``: files,
- ``answers``: a FIFO that receives two lines, the id of the process and its exit code (negative for a signal).

Jobs may overlap. They share nothing but the imported modules and the hash seed, so a job may crash, kill itself or
change any global setting. ``tests/support/backend.py`` is the client.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

import toolkit
from tests.workers import stub_job
from toolkit.config import process

NEUTRAL = "neutral"  # no framework; a stub stands in the place of toolkit.runs.job
# libraries that a run or a sweep imports inside functions
LATE = "hydra omegaconf rich.progress rich.table tensorboardX matplotlib.pyplot sacrebleu soundfile sentencepiece PIL"
SWEEPS = "optuna matplotlib.backends.backend_agg"
PROGRAMS = ("__main__", "run", "worker")  # modules that are themselves run as jobs

Order = dict[str, Any]


def preload(backend: str) -> None:
    """Import the framework, every module of the toolkit that belongs to the backend, and what a run imports late."""
    if backend == NEUTRAL:
        stub_job.install()
        libraries = (*LATE.split(), *SWEEPS.split())
    else:
        process.prepare(backend)
        libraries = (*process.FRAMEWORKS[backend], *LATE.split())
    skipped = {*process.FRAMEWORKS, *PROGRAMS} - {backend}
    modules = (module.name for module in pkgutil.walk_packages(toolkit.__path__, "toolkit."))
    for name in (*libraries, *modules):
        if name.rpartition(".")[2] not in skipped and not name.startswith("toolkit.cli."):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # otherwise each fork copies the memory of all objects when it collects garbage


def serve(orders: Iterable[bytes]) -> Order | None:
    """Fork a process for each order.

    Returns:
        In the process of a job: its order. In the server, when there are no more orders: None.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    for line in orders:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            order = json.loads(line)
            job = os.fork()
            if job == 0:
                return order
            keep(job, order["answers"])
    return None


def keep(job: int, answers: str) -> None:
    """Report the id of a job and its exit code, then end this process."""
    fifo = os.open(answers, os.O_WRONLY)
    os.write(fifo, b"%d\n" % job)
    os.write(fifo, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
    os._exit(0)


def work(order: Order) -> None:
    """Become the process of ``order``."""
    os.setsid()
    for number, (name, flags) in enumerate(
        (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY | os.O_APPEND), ("stderr", os.O_WRONLY | os.O_APPEND))
    ):
        os.dup2(os.open(order[name], flags), number)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    tempfile.tempdir = None  # the server's may be cached
    sys.argv[1:] = order["arguments"]
    sys.path.insert(0, order["cwd"])  # as python -m does
    for name in (order["module"], f"{order['module']}.__main__"):
        if "__path__" not in vars(sys.modules.get(name, sys)):  # a package stays, its __main__ is run
            sys.modules.pop(name, None)
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    preload(sys.argv[1])
    print("ready", flush=True)
    with os.fdopen(os.dup(0), "rb") as lines:
        mine = serve(lines)
    if mine is not None:
        work(mine)
