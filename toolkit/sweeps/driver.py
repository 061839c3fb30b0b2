"""Driver of a sweep: starts its jobs, watches them and keeps their results."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from toolkit.errors import ConfigError, writing
from toolkit.runs import checkpoint
from toolkit.runs.folder import hold
from toolkit.runs.place import in_use
from toolkit.sweeps import page, search, state
from toolkit.sweeps.launchers import Launcher, Process, launcher
from toolkit.sweeps.plan import Plan, check, folder_of, key_of
from toolkit.sweeps.state import Job, State, Trial
from toolkit.training.processes import handled, placed

PAUSE = 0.2  # seconds between two looks at the jobs
LONGEST = 200  # characters of a reason; its log has all of it


def run(overrides: Sequence[str], folders: Sequence[Path]) -> int:
    """Run or resume a sweep.

    Returns:
        the exit code: 1 where a job failed, 128 + the number of the signal that stopped it.

    Raises:
        UserError: before anything has started.
    """
    plan = check(overrides, folders)
    folder = folder_of(plan)
    with lock(folder), contextlib.closing(launcher(plan.sweep.launcher, folder)) as started:
        return Sweep(plan, folder, started).run()


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock the folder of a sweep.

    Raises:
        RunError: another process has it, or it cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115  lives as long as the sweep
    try:
        if warning := hold(file, folder):
            print(warning)
        yield
    finally:
        file.close()


class Sweep:
    """Running sweep."""

    def __init__(self, plan: Plan, folder: Path, launcher: Launcher) -> None:
        self.plan, self.folder, self.launcher = plan, folder, launcher
        earlier = state.load(folder)
        axes, uid = [axis.key for axis in plan.axes], earlier.uid if earlier else uuid.uuid4().hex
        directions = [objective.direction for objective in plan.objectives]
        self.search = search.search(plan.sweep.sweep, plan.axes, folder, uid, directions, plan.pruning)
        self.state = earlier or State(uid, [], plan.identity, plan.run.recipe, axes, plan.objectives, 0)
        # what failed is tried again, by a search under another number
        trials = [trial for trial in self.state.trials if trial.state != "failed"]
        failed = [trial for trial in self.state.trials if trial.state == "failed"]
        self.spent = {job.name: job.seconds for trial in failed for job in trial.jobs}
        self.state = replace(self.state, command=plan.command, total=self.search.count, trials=trials, ended=False)
        self.waiting: list[tuple[Trial, Job]] = []
        self.running: dict[int, Running] = {}  # slot -> job
        self.stopped = 0
        self.display = page.Display(self.state, folder)
        (folder / "logs").mkdir(exist_ok=True)
        if earlier:
            print(f"resuming the sweep in {folder}")
        self.state.save(folder)

    def run(self) -> int:
        """Run the remaining jobs and return the exit code."""
        try:
            with handled(self._on_signal), self.display:
                while self._fill() or self.running or self.waiting:
                    self._look()
                    self.display.show(self.running.values())
                    time.sleep(PAUSE)
                    if self.stopped and not self.running:
                        break
                else:
                    self.state.ended = not self.stopped
        finally:
            for running in self.running.values():  # an error ended it
                running.process.stop(signal.SIGTERM)
            self.state.save(self.folder)
        if self.stopped:
            print(
                f"interrupted by signal {self.stopped}; the same command resumes it in {self.folder}", file=sys.stderr
            )
        elif failed := self.state.failed:
            count = sum(len(trial.jobs) for trial in self.state.trials)
            lines = [f"  exit code {job.code}: {self.folder / job.name}: {job.why}" for job in failed]
            again = f"the same command with run_dir={self.folder} runs these again"
            print("\n".join([f"{len(failed)} of {count} runs failed; {again}:", *lines]), file=sys.stderr)
        page.write(self.state, self.folder)
        return 128 + self.stopped if self.stopped else int(bool(self.state.failed))

    def _fill(self) -> bool:
        """Start jobs up to the limit; return whether one was started or was done before."""
        progress = False
        while not self.stopped and len(self.running) < self.plan.sweep.launcher.jobs:
            if not self.waiting and not self._ask():
                break
            trial, job = self.waiting[0]
            if not job.handle and in_use(self.folder / job.name):  # a cluster's job is found again by its handle
                self.display.once(
                    f"run {job.name}: waiting: a process of the earlier sweep is still saving in its folder"
                )
                break
            self.waiting.pop(0)
            progress = True
            if state.results(self.folder / job.name) is not None:
                job.state = "done"
                self._settle(trial, job)
            else:
                self._start(trial, job)
        return progress

    def _ask(self) -> bool:
        """Take the next trial, and return whether there is one."""
        proposal = self.search.ask()
        if proposal is None:
            return False
        number, params = proposal
        trial = next((t for t in self.state.trials if t.number == number), None)
        if trial is None:
            trial = Trial(number, params, self._jobs(number))
            self.state.trials.append(trial)
        elif trial.params != params:
            raise ConfigError(
                f"{self.folder}: {state.FILE} and the study belong to different sweeps; set another run_dir"
            )
        for job in trial.jobs:
            job.state = "waiting"
        self.waiting += [(trial, job) for job in trial.jobs]
        return True

    def _jobs(self, number: int) -> list[Job]:
        seeds = self.plan.sweep.seeds
        if seeds == 1:
            jobs = [Job(str(number))]
        else:
            jobs = [Job(f"{number}-seed{seed}", seed) for seed in range(self.plan.run.seed, self.plan.run.seed + seeds)]
        return [replace(job, seconds=self.spent.get(job.name, 0.0)) for job in jobs]

    def _start(self, trial: Trial, job: Job) -> None:
        folder = self.folder / job.name
        params = [f"{key}={value}" for key, value in trial.params.items()]
        words = [*self.plan.words, *params, *([f"seed={job.seed}"] if job.seed is not None else [])]
        has_checkpoint = checkpoint.find(folder / "checkpoints", "last")
        sources = [key_of(word) for word in words if key_of(word) in ("resume", "evaluate")]
        if has_checkpoint and sources == ["resume"]:  # from another run at first, now from itself
            own = str(folder).replace("'", "\\'")
            words = [f"resume='{own}'" if key_of(word) == "resume" else word for word in words]
        elif not sources:
            words = [*words, "resume=auto"]
        slot = next(n for n in range(self.plan.sweep.launcher.jobs) if n not in self.running)
        log = self.folder / "logs" / f"{job.name}.log"
        try:
            process = self.launcher.again(job.handle) if job.handle else None
            process = process or self.launcher.start(placed(words, str(folder), self.plan.folders), log, slot)
        except Exception as error:  # any error of a busy cluster
            job.state, job.why = "failed", f"could not be started: {' '.join(str(error).split())}"
            self._settle(trial, job)
            return
        job.state, job.why, job.code, job.handle = "running", "", None, process.handle
        self.running[slot] = Running(trial, job, process, folder, log)
        self.state.save(self.folder)
        self.display.say(f"run {job.name}: {' '.join(params) or 'starts'} -> {folder}")

    def _look(self) -> None:
        for slot, running in list(self.running.items()):
            if self.stopped and not running.asked:  # it was started at the moment of the signal
                running.ask(self.stopped)
            code = running.process.poll()
            self._watch(running)  # also the last validations: the pruner compares others with them
            if code is None:
                continue
            del self.running[slot]
            job, job.seconds = running.job, round(running.job.seconds + time.monotonic() - running.began, 1)
            job.code = code
            if code == 0 and state.results(running.folder) is not None:
                job.state = "done"
            elif running.pruned:
                job.state = "pruned"
            elif self.stopped:
                job.state = "waiting"
            else:
                job.state, job.why = "failed", _why(code, running.log)
            self._settle(running.trial, job)

    def _watch(self, running: Running) -> None:
        """Report a job's validations to the search, and prune the job if it says so."""
        running.read()
        if not self.plan.pruning or running.pruned:
            return
        metric = self.plan.objectives[0].name.partition(".")[2]
        values = [row[metric] for row in running.rows if row["split"] == "validation" and metric in row]
        for validation, value in list(enumerate(values, 1))[running.reported :]:
            running.reported = validation
            hopeless = self.search.report(running.trial.number, validation, value)
            if hopeless and running.process.poll() is None:
                running.pruned = True
                running.ask(signal.SIGTERM)
                return

    def _settle(self, trial: Trial, ended: Job) -> None:
        """Save the state of an ended job; tell the search the result once all jobs of the trial have ended."""
        if trial.state == "done":
            try:
                results = [state.results(self.folder / job.name) or {} for job in trial.jobs]
                trial.values = [[objective.of(one) for objective in self.plan.objectives] for one in results]
            except KeyError as error:
                for job in trial.jobs:
                    job.state, job.why = "failed", str(error.args[0])
        self.display.ended(trial, ended)
        self.state.save(self.folder)  # first: reporting a trial twice is better than losing it
        if not any(job.state in ("waiting", "running") for job in trial.jobs):
            self.search.tell(trial.number, trial.means(), trial.state == "pruned")

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        """Ask all jobs to save and end at the first signal, and kill them at the second."""
        again, self.stopped = bool(self.stopped), signum
        for running in self.running.values():
            running.ask(signal.SIGKILL if again else signum)


def _why(code: int, log: Path) -> str:
    """Return the reason for the end of a job."""
    if code > 128 and code - 128 in set(signal.Signals):
        return f"ended by {signal.Signals(code - 128).name}"
    return textwrap.shorten(state.last_line(log), LONGEST, placeholder=" ...") or "it left no results.json"


class Running:
    """Running job."""

    def __init__(self, trial: Trial, job: Job, process: Process, folder: Path, log: Path) -> None:
        self.trial, self.job, self.process, self.folder, self.log = trial, job, process, folder, log
        self.began, self.pruned, self.asked = time.monotonic(), False, False
        self.reported = 0  # validations that the search has seen
        self.rows: list[dict[str, Any]] = []
        self._size = -1

    def ask(self, signum: int) -> None:
        """Send a signal that asks the job to save and end."""
        self.asked = True
        self.process.stop(signum)

    def read(self) -> None:
        """Read the rows of its log, if that has grown."""
        with contextlib.suppress(FileNotFoundError):
            size = os.stat(self.folder / "metrics.jsonl").st_size
            if size != self._size:
                self.rows, self._size = state.rows(self.folder), size
