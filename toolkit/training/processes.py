"""The processes of a run on several devices: which of them this one is, and how they start and end.

There is one process per device, or one per machine. Each of them does the same run, and only rank 0 writes, prints and
fetches data. If nothing else has started the processes of a run, the run does it: the process that the user started
becomes their parent, and only watches them. The ranks get the environment variables of torchrun. torchrun itself is not
used because it exits with 1 whatever the exit code of the run is, and kills ranks that still save 30 seconds after a
signal.
"""

from __future__ import annotations

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
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.config import cores, paths
from toolkit.errors import STOPPING, ConfigError

if TYPE_CHECKING:
    from toolkit.config.schema import Run

REPORT = "TOOLKIT_REPORT"  # file for the error message of a rank, which its parent shows
RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "GROUP_RANK")
GRACE = 20  # seconds for the other ranks to end after one has failed
POLL = 0.05  # seconds between two checks of the ranks
TAIL = 15  # last lines of output shown of a rank that was killed


def own_rank(run: Run, environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the rank of this process, if something has started it as one of several; None otherwise.

    Raises:
        ConfigError: the number of processes is not what the run needs.
    """
    try:
        place = _torch_place(environment) if run.backend == "torch" else _tf_place(environment)
    except (ValueError, AttributeError, TypeError) as error:
        names = "WORLD_SIZE, RANK and SLURM_*" if run.backend == "torch" else "TF_CONFIG"
        raise ConfigError(f"{names}: cannot be read ({error}); unset them, or set what the launcher sets") from error
    if place is None:
        return None
    variable, count, rank = place
    needed = run.trainer.processes(run.backend)
    if count != needed:
        setting = f"trainer.devices={run.trainer.devices} trainer.nodes={run.trainer.nodes}"
        raise ConfigError(f"{variable}: found {count} processes, expected {needed} with {setting}")
    return rank


def _torch_place(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Return the variable with the process count, the count and the rank, as set by torchrun or Slurm's srun."""
    if "WORLD_SIZE" in environment:
        return "WORLD_SIZE", int(environment["WORLD_SIZE"]), int(environment.get("RANK", 0))
    if (tasks := int(environment.get("SLURM_STEP_NUM_TASKS", 1))) > 1:
        return "SLURM_STEP_NUM_TASKS", tasks, int(environment.get("SLURM_PROCID", 0))
    return None


def _tf_place(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    if "TF_CONFIG" not in environment:
        return None
    content = json.loads(environment["TF_CONFIG"])
    workers = content.get("cluster", {}).get("worker", [""])
    return "TF_CONFIG", len(workers), int(content.get("task", {}).get("index", 0))


def own_temporary_folder() -> None:
    """Give this process, and those that it starts, a temporary folder that is removed when this process ends.

    Otherwise a loader worker that is killed leaves its sockets in the system's, and the frameworks leave caches and
    generated code. For commands, which own their process; a process that is itself killed leaves the folder.
    """
    folder = tempfile.mkdtemp(prefix="toolkit-")
    # after multiprocessing has removed its own folder in it, whichever was registered first
    util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-1000)
    os.environ["TMPDIR"] = tempfile.tempdir = folder


def silence(descriptor: int = 1) -> None:
    """Discard what this process prints from now on, and what it printed but could not write.

    Args:
        descriptor: of standard output, 1, or of standard error, 2.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def must_launch(run: Run, rank: int | None) -> bool:
    """Tell if this process has to start the run's processes.

    Args:
        run: the run's specs.
        rank: see :func:`own_rank`.

    Raises:
        ConfigError: they are on several machines, where something else has to start them.
    """
    if run.trainer.processes(run.backend) == 1 or rank is not None:
        return False
    if run.trainer.nodes == 1:
        return True
    how = {
        "torch": f"torchrun --nnodes {run.trainer.nodes} --nproc-per-node {run.trainer.devices} ... -m toolkit.run ...",
        "tf": "TF_CONFIG in its environment",
    }
    raise ConfigError(
        f"trainer.nodes: found {run.trainer.nodes}, but no launcher started this process; start it "
        f"on each machine with {how[run.backend]} (docs/guide/devices.md)"
    )


def launch(arguments: Sequence[str], count: int, folder: str) -> int:
    """Run ``python -m toolkit.run`` as ``count`` processes on this machine.

    A signal that asks this process to stop is sent to each of them once. If one fails, the others are ended, and its
    message is shown once.

    Args:
        arguments: command line of every process.
        count: number of processes.
        folder: of the run, for the message.

    Returns:
        the exit code of the run.
    """
    reports = Path(tempfile.mkdtemp(prefix="toolkit-ranks-"))
    received: list[int] = []
    ranks: list[subprocess.Popen[bytes]] = []

    def forward(signum: int, _: Any = None) -> None:
        received.append(signum)
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(signum)

    with handled(forward):
        try:
            port = _free_port()
            for number in range(count):
                if not received:
                    ranks.append(_start(arguments, number, count, port, reports))
            if received:  # before all were there
                forward(received.pop())
            first = _watch(ranks, received)
            return _outcome(ranks, first, received, reports, folder)
        finally:
            for rank in ranks:
                rank.kill()  # does nothing if it has ended
            shutil.rmtree(reports, ignore_errors=True)


@contextlib.contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Call ``handler`` for the signals that ask this process to stop, inside the ``with`` block.

    Outside the main thread, where Python handles no signals, none is caught.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {signum: signal.signal(signum, handler) for signum in STOPPING} if main else {}
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)


def placed(words: Sequence[str], folder: str, folders: Sequence[Path]) -> list[str]:
    """Return the command line of a run in a child process.

    Args:
        words: overrides without ``run_dir``.
        folder: of its results.
        folders: more folders of configs.
    """
    flags = [part for extra in folders for part in ("--config-dir", str(extra))]
    return [*words, f"run_dir={paths.quoted(folder)}", *flags]


def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start ``python -m toolkit.run`` as a child process that ends with this one.

    It gets its own session, because Ctrl-C would reach it twice otherwise.
    """
    command = [sys.executable, "-m", "toolkit.run", *arguments]
    return subprocess.Popen(command, start_new_session=True, preexec_fn=ending_with_parent(), **options)


def ending_with_parent() -> Callable[[], object] | None:
    """Return a hook for a new process: on Linux, SIGTERM reaches it when its parent is killed, and it saves."""
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
    # by default each would use all cores, and its threads would wait for those of the others
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores.count() // count)))
    if not number:
        return start(arguments, env=environment)
    with open(reports / f"{number}.output", "wb") as output:
        return start(arguments, env=environment, stdout=output, stderr=output)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _watch(ranks: Sequence[subprocess.Popen[bytes]], received: Sequence[int]) -> int | None:
    """Wait until all ranks have ended, and end them after one has failed; return the rank that failed first."""
    first: int | None = None
    deadline = 0.0
    while any(rank.poll() is None for rank in ranks):
        if first is None and (failed := _failed(ranks, received)):
            first, deadline = failed[0], time.monotonic() + GRACE
            for rank in ranks:
                rank.terminate()
        elif first is not None and time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
        time.sleep(POLL)
    return first if first is not None else next(iter(_failed(ranks, received)), None)


def _failed(ranks: Sequence[subprocess.Popen[bytes]], received: Sequence[int]) -> list[int]:
    """Return the ranks that have failed, killed ones first: the others may have failed because of them."""
    fine = {0, None, *(sign * signum + base for signum in received for sign, base in ((1, 128), (-1, 0)))}
    failed = [number for number, rank in enumerate(ranks) if rank.returncode not in fine]
    return sorted(failed, key=lambda number: ranks[number].returncode > 0)


def _outcome(
    ranks: Sequence[subprocess.Popen[bytes]], first: int | None, received: Sequence[int], reports: Path, folder: str
) -> int:
    """Print how the run ended, once; return its exit code."""
    if first is None:
        texts = [text for number in range(len(ranks)) if (text := _read(reports / str(number)))]
        print("".join(texts[:1]), end="", file=sys.stderr)
        return 128 + received[0] if received and any(rank.returncode for rank in ranks) else 0
    code, name = ranks[first].returncode, f"process {first} of {len(ranks)}"
    if code > 0 and (text := _read(reports / str(first))):
        print(text, end="", file=sys.stderr)
        return code
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    lines = "".join(f"  {line}\n" for line in _read(reports / f"{first}.output").splitlines()[-TAIL:])
    print(
        f"{name} {how}; the other processes were ended. If the run saved a checkpoint, it is intact; continue "
        f"with resume={folder}\n{lines}",
        end="",
        file=sys.stderr,
    )
    return 1


def _read(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.exists() else ""
