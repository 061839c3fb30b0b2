"""State of a sweep, kept in ``sweep.json``, and the results of its jobs."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.data.problems import nearest
from toolkit.errors import ConfigError, writing
from toolkit.metrics.metric import Metric
from toolkit.runs import checkpoint
from toolkit.tasks.spec import Task

FILE = "sweep.json"
FORMAT = 2
EARLIER = {1: "7879d9e"}  # format -> last commit that reads it
# figures of results.json beside the metrics of the splits, and which way they are better
FIGURES = {
    "examples_per_second": "maximize",
    "train_seconds": "minimize",
    "wall_seconds": "minimize",
    "evaluation_ms_per_example": "minimize",
    "parameters": "minimize",
}
MEASURED = ("validation", "test")  # splits that every run measures
# two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; beyond them the last, which is a little wide
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
Status = Literal["waiting", "running", "done", "pruned", "failed"]


@dataclass(frozen=True)
class Objective:
    """Figure to optimize: a metric of a split, such as ``validation.wer``, or a figure of the run."""

    name: str
    direction: str
    decimals: int | None = None  # shown; None: a rate is shown as a percentage

    @classmethod
    def named(cls, name: str, task: Task) -> Objective:
        """Find an objective by its name; the task knows its metrics.

        Raises:
            ConfigError: there can be none of this name.
        """
        if name in FIGURES:
            return cls(name, FIGURES[name])
        if not re.fullmatch(r"\w+\.\w+", name):
            expected = f"SPLIT.METRIC, such as validation.loss, or one of {', '.join(FIGURES)}"
            raise ConfigError(f"objectives: found {name!r}, expected {expected}")
        split, _, figure = name.partition(".")
        if split not in MEASURED:
            raise ConfigError(f"objectives: found {name!r}, expected a split of {' and '.join(MEASURED)}")
        metrics = [metric.name for metric in task.metrics]
        if figure not in metrics:
            hint = nearest(figure, metrics, prefix=f"{split}.")
            expected = f"a metric of {type(task).__name__}: {', '.join(metrics)}{hint}"
            raise ConfigError(f"objectives: found {name!r}, expected {expected}")
        metric = task.metric(figure)
        return cls(name, "minimize" if metric.better == "smaller" else "maximize", metric.decimals)

    @property
    def sign(self) -> int:
        """1 where smaller is better."""
        return 1 if self.direction == "minimize" else -1

    def of(self, results: Mapping[str, Any]) -> float:
        """Return the figure in a run's results.

        Raises:
            KeyError: the run has no such figure; lists those that it has.
        """
        split, _, name = self.name.partition(".")
        figures = results["metrics"].get(split, {}) if name else results
        value = figures.get(name or split)
        if not isinstance(value, (int, float)):
            names = [f"{s}.{n}" for s, values in results["metrics"].items() for n in values]
            raise KeyError(f"no {self.name} in results.json (there are: {', '.join([*names, *FIGURES])})")
        return float(value)

    @property
    def is_rate(self) -> bool:
        """True for a metric that is shown as a percentage."""
        return "." in self.name and self.decimals is None

    def shown(self, value: float | None) -> str:
        if value is None:
            return ""
        if "." in self.name:
            return Metric(self.name, decimals=self.decimals).format(value)
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


@dataclass
class Job:
    """One run of a sweep.

    Args:
        name: of its folder in that of the sweep.
        seed: where a trial has several.
        state: waiting also after an interruption.
        code: exit code of the last attempt.
        why: the last line of a job that failed.
        seconds: of all attempts.
        handle: by which a cluster knows it.
    """

    name: str
    seed: int | None = None
    state: Status = "waiting"
    code: int | None = None
    why: str = ""
    seconds: float = 0.0
    handle: str = ""


@dataclass
class Trial:
    """One choice of parameters, with a job for each seed."""

    number: int
    params: dict[str, str]
    jobs: list[Job]
    values: list[list[float]] = field(default_factory=list)  # objectives of each job that is done

    @property
    def state(self) -> Status:
        states = {job.state for job in self.jobs}
        order: tuple[Status, ...] = ("failed", "pruned", "running", "waiting")
        return next((state for state in order if state in states), "done")

    def means(self) -> list[float] | None:
        """Return the means of the objectives over the seeds; None if a job is missing."""
        if self.state != "done":
            return None
        return [statistics.fmean(values) for values in zip(*self.values, strict=True)]

    def intervals(self) -> list[float] | None:
        """Return half the width of the 95 % interval of each mean, by Student's t; None with one seed."""
        count = len(self.values)
        if self.state != "done" or count < 2:
            return None
        quantile = STUDENT[min(count - 2, len(STUDENT) - 1)]
        return [quantile * deviation(values) / math.sqrt(count) for values in zip(*self.values, strict=True)]


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; NaN if one of the values is not finite."""
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


@dataclass
class State:
    """All of a sweep.

    Args:
        uid: no other sweep has it.
        command: the words of the command line.
        identity: settings by which a sweep is recognized when it resumes.
        recipe: of the runs.
        axes: the keys that vary.
        objectives: figures to optimize; the first one sorts the trials.
        total: trials that there will be.
        ended: no trial is left.
    """

    uid: str
    command: list[str]
    identity: dict[str, Any]
    recipe: str
    axes: list[str]
    objectives: list[Objective]
    total: int
    trials: list[Trial] = field(default_factory=list)
    ended: bool = False

    def save(self, folder: Path) -> None:
        blob = json.dumps({"format": FORMAT} | asdict(self), indent=1).encode()
        with writing(folder / FILE, len(blob)):
            checkpoint.write(folder / FILE, blob)

    def ranked(self) -> list[Trial]:
        """Return the trials that are done, the best first by the first objective, then the others."""
        sign = self.objectives[0].sign

        def key(trial: Trial) -> tuple[bool, float, int]:
            means = trial.means()
            bad = means is None or math.isnan(means[0])
            return bad, 0.0 if bad or means is None else sign * means[0], trial.number

        return sorted(self.trials, key=key)

    @property
    def failed(self) -> list[Job]:
        return [job for trial in self.trials for job in trial.jobs if job.state == "failed"]


def load(folder: Path) -> State | None:
    """Load the sweep of a folder; None if there is none.

    Raises:
        ConfigError: its file cannot be read.
    """
    path = folder / FILE
    if not os.path.exists(path):  # which, unlike Path's, never raises
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
        if (found := data.pop("format")) != FORMAT:
            reader = f"; commit {EARLIER[found]} of the toolkit reads it" if found in EARLIER else ""
            raise ValueError(f"found format {found}, expected {FORMAT}{reader}")
        data["objectives"] = [Objective(**objective) for objective in data["objectives"]]
        data["trials"] = [Trial(**t | {"jobs": [Job(**job) for job in t["jobs"]]}) for t in data["trials"]]
        return State(**data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}), expected the state of a sweep") from error


def results(folder: Path) -> dict[str, Any] | None:
    """Read the results of a job's run; None before its end."""
    try:
        return json.loads((folder / "results.json").read_text("utf-8"))
    except FileNotFoundError:
        return None


def rows(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of a job's ``metrics.jsonl``, except a line that is being written."""
    try:
        lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def last_line(log: Path) -> str:
    """Return the last line of a job's output."""
    try:
        lines: Sequence[str] = log.read_text("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
