"""Launchers of a sweep's jobs: each is a process of ``toolkit.run``, because two frameworks must not share one."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from toolkit.config import contracts, cores, process, source
from toolkit.errors import ConfigError
from toolkit.sweeps.spec import Local, Ray, Submitit
from toolkit.training.processes import start

Command = Sequence[str]  # the words after "python -m toolkit.run"
KILLED = 128 + signal.SIGKILL


class Process(Protocol):
    """A job that was started."""

    def poll(self) -> int | None:
        """Return the exit code, as a shell gives it; None while the job waits or runs."""

    def stop(self, signum: int) -> None:
        """Ask it to save and end."""

    @property
    def handle(self) -> str:
        """The name by which a later sweep finds the job; empty if it ends with this one."""


class Launcher(Protocol):
    """Starter of jobs."""

    def start(self, command: Command, log: Path, slot: int) -> Process:
        """Start ``toolkit.run`` with these words; ``log`` takes what it says, ``slot`` is below ``jobs``."""

    def again(self, handle: str) -> Process | None:
        """Find a job that an earlier sweep started and left; None if there is none."""

    def close(self) -> None: ...


def check(spec: contracts.Launcher) -> list[str]:
    """Return a line for a missing package, and for an unknown launcher."""
    if not isinstance(spec, Local | Submitit | Ray):
        return [f"launcher: found {type(spec).__name__}, expected one of {', '.join(source.options('launcher'))}"]
    for kind, package, extra in ((Submitit, "submitit", "sweep"), (Ray, "ray", "ray")):
        if isinstance(spec, kind) and importlib.util.find_spec(package) is None:
            return [f"launcher: needs {package}, not installed here: {process.install(extra)}"]
    return []


def launcher(spec: contracts.Launcher, folder: Path) -> Launcher:
    """Return the launcher that a spec describes.

    Raises:
        ConfigError: the cluster is not reachable.
    """
    kinds: dict[type[Any], Callable[[Any, Path], Launcher]] = {Local: Here, Submitit: Slurm, Ray: Cluster}
    try:
        return kinds[type(spec)](spec, folder)
    except Exception as error:  # whatever submitit or Ray say of a cluster that is not there
        raise ConfigError(f"launcher: {' '.join(str(error).split())}") from error


# --- processes of this machine ---------------------------------------------------------------------------------------


class Here:
    """Processes of this machine, which end with the sweep."""

    def __init__(self, spec: Local, folder: Path) -> None:
        self.spec = spec

    def start(self, command: Command, log: Path, slot: int) -> Process:
        environment: dict[str, str] = {}
        if self.spec.jobs > 1 and "OMP_NUM_THREADS" not in os.environ:  # or each would take all cores
            environment |= dict.fromkeys(process.THREADS, str(max(1, cores.count() // self.spec.jobs)))
        if self.spec.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.spec.gpus[slot]
        return Child(command, log, environment)

    def again(self, handle: str) -> Process | None:
        return None

    def close(self) -> None: ...


class Child:
    """A process of ``toolkit.run``."""

    handle = ""

    def __init__(self, command: Command, log: Path, environment: Mapping[str, str]) -> None:
        with open(log, "ab") as out:
            self.process = start(command, stdout=out, stderr=out, env=os.environ | environment)

    def poll(self) -> int | None:
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def stop(self, signum: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signum)


def run_elsewhere(command: Command, log: Path, folder: Path) -> int:
    """Run a job on the machine that this function was sent to; once there is :func:`stop_file`, ask it to end.

    Returns:
        the exit code, as a shell gives it.
    """
    os.chdir(folder)
    child = Child(command, log, {})  # if this process is killed, the system signals the child to save and end
    while True:
        try:
            while (code := child.poll()) is None:
                if stop_file(log).exists():
                    stop_file(log).unlink(missing_ok=True)
                    child.stop(signal.SIGTERM)
                time.sleep(0.2)  # process.wait() could not be interrupted
            return code
        except KeyboardInterrupt:  # Ray and submitit cancel this way
            child.stop(signal.SIGTERM)


def stop_file(log: Path) -> Path:
    """Return the path of the file that asks a job on another machine to save and end."""
    return log.with_suffix(".stop")


# --- Slurm -----------------------------------------------------------------------------------------------------------


class Slurm:
    """Jobs of a Slurm cluster, or submitit's processes of this machine."""

    def __init__(self, spec: Submitit, folder: Path) -> None:
        import submitit

        options = {"slurm_max_num_timeout": 1000} if spec.cluster == "slurm" else {}  # queued again as often as needed
        self.executor = submitit.AutoExecutor(folder / "submitit", cluster=spec.cluster, **options)
        self.folder, self.cluster = folder / "submitit", spec.cluster
        self.executor.update_parameters(timeout_min=spec.minutes, name="toolkit")
        if spec.cluster == "slurm":
            lines = {"slurm_partition": spec.partition, "slurm_account": spec.account}
            self.executor.update_parameters(
                cpus_per_task=spec.cpus,
                gpus_per_node=spec.gpus,
                mem_gb=spec.memory_gb,
                slurm_setup=list(spec.setup),
                slurm_signal_delay_s=120,  # for the last checkpoint
                **{name: value for name, value in lines.items() if value is not None},
            )

    def start(self, command: Command, log: Path, slot: int) -> Process:
        return SlurmJob(self.executor.submit(_Requeued(list(command), log.resolve(), Path.cwd())), self.cluster)

    def again(self, handle: str) -> Process | None:
        if self.cluster != "slurm" or not handle:
            return None  # a local one ends by itself, and holds its folder until then
        from submitit import SlurmJob as Submitted

        found: Any = Submitted(self.folder, handle)
        return None if found.done(force_check=True) else SlurmJob(found, self.cluster)

    def close(self) -> None: ...


class _Requeued:
    """A job that Slurm may take away and queue again: when requeued, it resumes from its checkpoint."""

    def __init__(self, command: Command, log: Path, folder: Path) -> None:
        self.command, self.log, self.folder = command, log, folder

    def __call__(self) -> int:
        return run_elsewhere(self.command, self.log, self.folder)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmJob:
    """A job that was handed to submitit."""

    def __init__(self, job: Any, cluster: str) -> None:
        self.job, self.stopped = job, False
        self.handle = str(job.job_id) if cluster == "slurm" else ""

    def poll(self) -> int | None:
        if not self.job.done(force_check=self.stopped):
            return None
        if self.stopped:
            return KILLED  # to look for its result takes submitit a quarter of a minute
        if (error := self.job.exception()) is not None:
            print(f"job {self.job.job_id}: {error}", file=sys.stderr)
            return KILLED
        return int(self.job.result())

    def stop(self, signum: int) -> None:
        self.stopped = True
        self.job.cancel(check=False)


# --- Ray -------------------------------------------------------------------------------------------------------------


class Cluster:
    """Tasks of a Ray cluster."""

    def __init__(self, spec: Ray, folder: Path) -> None:
        import ray

        self.ray = ray
        ray.init(address=spec.address, log_to_driver=False, include_dashboard=False, configure_logging=False)
        # a stopped task must not be restarted
        self.run = ray.remote(num_cpus=spec.cpus, num_gpus=spec.gpus, max_retries=0)(run_elsewhere)

    def start(self, command: Command, log: Path, slot: int) -> Process:
        stop_file(log).unlink(missing_ok=True)
        return RayTask(self.ray, self.run.remote(list(command), log.resolve(), Path.cwd()), stop_file(log))

    def again(self, handle: str) -> Process | None:
        return None

    def close(self) -> None:
        self.ray.shutdown()


class RayTask:
    """A task that was handed to Ray."""

    handle = ""

    def __init__(self, ray: Any, task: Any, stop: Path) -> None:
        self.ray, self.task, self.asks = ray, task, stop

    def poll(self) -> int | None:
        if not self.ray.wait([self.task], timeout=0)[0]:
            return None
        try:
            return int(self.ray.get(self.task))
        except self.ray.exceptions.RayError:  # cancelled, or its machine is gone
            return KILLED

    def stop(self, signum: int) -> None:
        self.asks.touch()  # Ray's own interrupt may not reach a running task
        self.ray.cancel(self.task, force=signum == signal.SIGKILL)
