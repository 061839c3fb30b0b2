"""Plan of a sweep: its command line, checked as a whole, and its folder."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.config import compose, schema
from toolkit.config.compose import Axis
from toolkit.config.schema import Run
from toolkit.config.source import OF_A_SWEEP
from toolkit.errors import ConfigError
from toolkit.runs import checkpoint
from toolkit.runs.place import numbered
from toolkit.sweeps import launchers, search, state
from toolkit.sweeps.spec import Optuna
from toolkit.sweeps.state import Objective

CHECKED = 64  # combinations of a grid that are checked one by one; with more, each axis is checked separately


@dataclass(frozen=True)
class Plan:
    """Checked command line of a sweep.

    Args:
        command: its words.
        words: overrides that all jobs share.
        axes: keys that vary.
        run: one of the jobs.
        sweep: settings of the sweep.
        objectives: figures to optimize.
        folders: more folders of configs.
        run_dir: folder of the sweep, if given.
    """

    command: list[str]
    words: list[str]
    axes: list[Axis]
    run: Run
    sweep: schema.Sweep
    objectives: list[Objective]
    folders: Sequence[Path]
    run_dir: Path | None

    @property
    def identity(self) -> dict[str, Any]:
        search = self.sweep.sweep
        return {
            "words": sorted(self.words),
            "axes": [asdict(axis) | {"values": list(axis.values)} for axis in self.axes],
            "seeds": self.sweep.seeds,
            "objectives": [objective.name for objective in self.objectives],
            "sweep": type(search).__name__,
            "study": [search.storage, search.study] if isinstance(search, Optuna) else [None, None],
        }

    @property
    def pruning(self) -> bool:
        """Tell if trials can be pruned: one objective that is measured during training, one seed."""
        objectives = self.objectives
        return len(objectives) == 1 and objectives[0].name.startswith("validation.") and self.sweep.seeds == 1


def check(overrides: Sequence[str], folders: Sequence[Path]) -> Plan:
    """Check a whole sweep.

    Raises:
        ConfigError: with every problem of every job.
    """
    problems: list[str] = []
    fixed, axes = compose.axes(overrides, problems)
    loaded: compose.Loaded = {}
    run, sweep = _checked([*fixed, *(f"{axis.key}={axis.samples[0]}" for axis in axes)], folders, problems, loaded)
    if sweep is not None:
        keys = {axis.key for axis in axes} | {key_of(word) for word in fixed}
        words, more = compose.axes(sweep.ranges, problems)
        problems += [f"ranges: {word}: one value, expected several" for word in words]
        axes = [*(axis for axis in more if axis.key not in keys), *axes]
        problems += search.check(sweep.sweep, axes) + launchers.check(sweep.launcher)
        if sweep.seeds > 1 and any(axis.key == "seed" for axis in axes):
            problems.append(f"seeds: {sweep.seeds} is not supported with several values of seed; set one of them")
    problems += [
        f"{axis.key}: several values, expected one for the whole sweep"
        for axis in axes
        if axis.key.partition(".")[0] in (*OF_A_SWEEP, "run_dir", "resume", "check")
    ]
    if run is not None and run.check:
        problems.append("check: true is not supported in a sweep; check the data of one run first")
    axis_keys, fixed_keys = [axis.key for axis in axes], {key_of(word) for word in fixed}
    problems += [
        f"{key}: given twice" for key in dict.fromkeys(axis_keys) if axis_keys.count(key) > 1 or key in fixed_keys
    ]
    runs = [_checked([*fixed, *words], folders, problems, loaded)[0] for words in _samples(axes)]
    monitors = list(dict.fromkeys(one.task.monitor for one in runs if one is not None))
    objectives = []
    if run is not None and sweep is not None:
        if len(monitors) > 1 and not sweep.objectives:
            names = " and ".join(monitors)
            problems.append(f"objectives: the runs monitor {names}; set one, such as objectives=[validation.loss]")
        try:
            objectives = [Objective.named(n, run.task) for n in sweep.objectives or [f"validation.{run.task.monitor}"]]
        except ConfigError as error:
            problems += error.problems
    if problems or run is None or sweep is None:
        raise ConfigError(list(dict.fromkeys(problems)), "the configs cannot be run:")
    own = (*OF_A_SWEEP, "run_dir")
    words = [word for word in fixed if key_of(word).partition(".")[0] not in own]
    given_dir = Path(run.run_dir) if any(key_of(word) == "run_dir" for word in fixed) else None
    return Plan(list(overrides), words, axes, run, sweep, objectives, folders, given_dir)


def _checked(
    words: Sequence[str], folders: Sequence[Path], problems: list[str], loaded: compose.Loaded
) -> tuple[Run | None, schema.Sweep | None]:
    try:
        return schema.check_both(words, folders, loaded)
    except ConfigError as error:
        problems += error.problems
        return None, None


def key_of(word: str) -> str:
    """Return the key that an override sets."""
    return word.lstrip("+~").partition("=")[0]


def _samples(axes: Sequence[Axis]) -> Iterator[list[str]]:
    """Yield overrides that represent all jobs in a check."""
    samples = [[f"{axis.key}={value}" for value in axis.samples] for axis in axes]
    count = 1
    for values in samples:
        count *= len(values)
    if count <= CHECKED:
        yield from map(list, itertools.product(*samples))
        return
    for place, values in enumerate(samples):
        for value in values:
            yield [value if i == place else others[0] for i, others in enumerate(samples)]


def folder_of(plan: Plan) -> Path:
    """Return the folder of the sweep: the given one, that of the same sweep if it was interrupted, or one made for it.

    Raises:
        ConfigError: it holds something else.
    """
    several_recipes = any(axis.key == "recipe" for axis in plan.axes)
    base = Path("multirun") / ("sweep" if several_recipes else plan.run.recipe)
    if (folder := plan.run_dir) is not None:
        earlier = state.load(folder)
        if earlier is None and checkpoint.find(folder / "checkpoints", "last"):
            raise ConfigError(f"run_dir: {folder} holds a run, expected a sweep or nothing")
        if earlier is not None and earlier.identity != plan.identity:
            command = shlex.join(earlier.command)
            raise ConfigError(
                f"run_dir: {folder} holds another sweep ({command}); set another run_dir, or repeat its command"
            )
        return folder
    for folder in sorted(base.glob("*"), reverse=True):
        earlier = None
        with contextlib.suppress(ConfigError):  # one of another version, or cut off
            earlier = state.load(folder)
        if earlier is not None and not earlier.ended and earlier.identity == plan.identity:
            return folder
    return numbered(base / time.strftime("%Y-%m-%d_%H-%M-%S"))
