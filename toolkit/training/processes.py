"""The processes of a run that trains on several devices: which of them this one is, and how they are started and ended.

With one process a device (or a machine) each does the same run, and only the first, rank 0, writes, prints and fetches
data. A run that nothing else started as several processes starts them itself: the process that the user started becomes
their parent and does nothing but watch them. What is handed to a rank is its environment, which is torchrun's; torchrun
itself would exit with 1 whatever the run's code is, and kill ranks 30 seconds after a signal though they still save.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import ConfigError
from toolkit.training.spec import processes

REPORT = "TOOLKIT_REPORT"  # the file in which a rank leaves what it would have written to standard error
RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "GROUP_RANK")
GRACE = 20  # seconds that the others have to end by themselves once one has failed
LOOK = 0.05  # seconds from one look at the ranks to the next
TAIL = 15  # lines shown of what a rank wrote before it was killed


def started(run: Any, environment: Mapping[str, str] = os.environ) -> int | None:
    """The rank of this process, where something has started it as one of several; None where nothing has.

    Raises:
        ConfigError: as one of another number than the run is to have.
    """
    wanted, count, rank, by = processes(run.backend, run.trainer), 1, 0, ""
    if run.backend == "torch" and "WORLD_SIZE" in environment:
        count, rank, by = int(environment["WORLD_SIZE"]), int(environment.get("RANK", 0)), "WORLD_SIZE"
    elif run.backend == "torch" and (tasks := int(environment.get("SLURM_STEP_NUM_TASKS", 1))) > 1:
        count, rank, by = tasks, int(environment.get("SLURM_PROCID", 0)), "SLURM_STEP_NUM_TASKS"
    elif run.backend == "tf" and "TF_CONFIG" in environment:
        told = json.loads(environment["TF_CONFIG"])
        count, rank = len(told.get("cluster", {}).get("worker", [""])), int(told.get("task", {}).get("index", 0))
        by = "TF_CONFIG"
    if by and count != wanted:
        what = f"trainer.devices={run.trainer.devices} trainer.nodes={run.trainer.nodes}"
        raise ConfigError(f"{by}: started as one of {count} processes, {what} takes {wanted}")
    return rank if by else None


def own_temporary_folder() -> None:
    """Give this process, and those that it starts, a temporary folder that is removed when this process ends.

    Otherwise a loader worker that is killed leaves its sockets in the system's, and the frameworks leave caches and
    generated code. For commands, which own their process; a process that is itself killed leaves the folder.
    """
    folder = tempfile.mkdtemp(prefix="toolkit-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = folder


def launched(run: Any) -> bool:
    """Whether this process has to start the run's processes.

    Raises:
        ConfigError: they are on several machines, on each of which something else has to.
    """
    if processes(run.backend, run.trainer) == 1 or started(run) is not None:
        return False
    if run.trainer.nodes == 1:
        return True
    how = {
        "torch": f"torchrun --nnodes {run.trainer.nodes} --nproc-per-node {run.trainer.devices} ... -m toolkit.run ...",
        "tf": "TF_CONFIG in its environment",
    }
    raise ConfigError(
        f"trainer.nodes: found {run.trainer.nodes}, but nothing has started this process as one of several; start it "
        f"on each machine with {how[run.backend]} (docs/scaling.md)"
    )


def launch(arguments: Sequence[str], count: int, folder: str) -> int:
    """Run ``python -m toolkit.run`` as ``count`` processes on this machine.

    Signals that ask this process to stop reach each of them once. Where one fails, the others are ended; what it
    said is shown, once.

    Args:
        arguments: of the command line, alike for all.
        folder: of the run, for the message.

    Returns:
        the exit code of the run.
    """
    reports = Path(tempfile.mkdtemp(prefix="toolkit-ranks-"))
    asked: list[int] = []
    ranks: list[subprocess.Popen[bytes]] = []

    def hand_on(signum: int, _: Any = None) -> None:
        asked.append(signum)
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(signum)

    with handled(hand_on):
        try:
            port = _free_port()
            for number in range(count):
                if not asked:
                    ranks.append(_start(arguments, number, count, port, reports))
            if asked:  # while they were made
                hand_on(asked.pop())
            first = _watch(ranks, asked)
            return _outcome(ranks, first, asked, reports, folder)
        finally:
            for rank in ranks:
                rank.kill()  # nothing where it has ended
            shutil.rmtree(reports, ignore_errors=True)


@contextlib.contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let ``handler`` have the signals that ask this process to stop."""
    before = {signum: signal.signal(signum, handler) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)


def placed(words: Sequence[str], folder: str, folders: Sequence[Path]) -> list[str]:
    """Arguments of a run in a process of its own.

    Args:
        words: overrides, ``run_dir`` left out.
        folder: where its results go.
        folders: more folders of configs.
    """
    quoted = folder.replace("'", "\\'")
    return [*words, f"run_dir='{quoted}'", *(part for extra in folders for part in ("--config-dir", str(extra)))]


def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """``python -m toolkit.run`` in a process of its own, that ends with this one.

    It has a session of its own, or Ctrl-C would reach it twice.
    """
    command = [sys.executable, "-m", "toolkit.run", *arguments]
    return subprocess.Popen(command, start_new_session=True, preexec_fn=_ended_with_its_parent(), **options)


def _ended_with_its_parent() -> Callable[[], object] | None:
    """For a new process: on Linux, SIGTERM when its parent is killed, so that it saves and ends; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _start(arguments: Sequence[str], number: int, count: int, port: int, reports: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in RANK} | {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        REPORT: str(reports / str(number)),
    }
    # each would take all cores, and wait for the others' threads
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    if not number:
        return start(arguments, env=environment)
    with open(reports / f"{number}.output", "wb") as output:
        return start(arguments, env=environment, stdout=output, stderr=output)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _watch(ranks: Sequence[subprocess.Popen[bytes]], asked: Sequence[int]) -> int | None:
    """Wait until all have ended, and see to it that they do once one has failed; returns which was the first."""
    first: int | None = None
    until = 0.0
    while any(rank.poll() is None for rank in ranks):
        if first is None and (failed := _failed(ranks, asked)):
            first, until = failed[0], time.monotonic() + GRACE
            for rank in ranks:
                rank.terminate()
        elif first is not None and time.monotonic() > until:
            for rank in ranks:
                rank.kill()
        time.sleep(LOOK)
    return first if first is not None else next(iter(_failed(ranks, asked)), None)


def _failed(ranks: Sequence[subprocess.Popen[bytes]], asked: Sequence[int]) -> list[int]:
    """Which have failed so far, killed ones first: the others may have failed because of them."""
    fine = {0, None, *(sign * signum + base for signum in asked for sign, base in ((1, 128), (-1, 0)))}
    failed = [number for number, rank in enumerate(ranks) if rank.returncode not in fine]
    return sorted(failed, key=lambda number: ranks[number].returncode > 0)


def _outcome(
    ranks: Sequence[subprocess.Popen[bytes]], first: int | None, asked: Sequence[int], reports: Path, folder: str
) -> int:
    """Say what became of the run, once; returns its exit code."""
    if first is None:
        told = [text for number in range(len(ranks)) if (text := _read(reports / str(number)))]
        print("".join(told[:1]), end="", file=sys.stderr)
        return 128 + asked[0] if asked and any(rank.returncode for rank in ranks) else 0
    code, name = ranks[first].returncode, f"process {first} of {len(ranks)}"
    if code > 0 and (text := _read(reports / str(first))):
        print(text, end="", file=sys.stderr)
        return code
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    lines = "".join(f"  {line}\n" for line in _read(reports / f"{first}.output").splitlines()[-TAIL:])
    print(
        f"{name} {how}; the others were ended. If the run has left a checkpoint, it is whole: go on with "
        f"resume={folder}\n{lines}",
        end="",
        file=sys.stderr,
    )
    return 1


def _read(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.exists() else ""
