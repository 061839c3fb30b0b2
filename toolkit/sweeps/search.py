"""Search of a sweep: all combinations of a grid, or the trials that Optuna asks for, one after the other."""

from __future__ import annotations

import importlib.util
import itertools
import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from toolkit.config.compose import Axis
from toolkit.config.contracts import Component
from toolkit.config.process import install
from toolkit.errors import ConfigError
from toolkit.sweeps.spec import Grid, Optuna

Params = dict[str, str]  # key -> value as it stands in an override
OURS = "toolkit:sweep"  # attribute of a trial of Optuna's: the sweep that runs it
MOST = 500  # trials that are looked at for the importance of parameters, the best ones; more take minutes
FEWEST = 10  # trials for that: with 4 to 6, a parameter without influence gets 15 to 50 %; with 10, up to 20 %
TRIES = 5  # to open a database that another sweep may be making at this moment


class Search(Protocol):
    """Source of the trials."""

    count: int  # trials that there will be

    def ask(self) -> tuple[int, Params] | None:
        """Return number and parameters of the next trial; None: there are no more."""

    def tell(self, number: int, values: Sequence[float] | None, pruned: bool = False) -> None:
        """Take the result of a trial; None: it failed, or was pruned."""

    def report(self, number: int, validation: int, value: float) -> bool:
        """Take the result of a validation, counted from 1; return True if the trial should be pruned."""


def search(
    spec: Component, axes: Sequence[Axis], folder: Path, uid: str, directions: Sequence[str], pruning: bool
) -> Search:
    """Return the search that a spec describes.

    Args:
        folder: of the sweep.
        uid: of the sweep.
        directions: ``minimize`` or ``maximize`` of each objective.
        pruning: whether trials can be stopped early.
    """
    if isinstance(spec, Grid):
        return Combinations(axes)
    if isinstance(spec, Optuna):
        return Study(spec, axes, folder, uid, directions, pruning)
    raise AssertionError(type(spec))  # refused by check


def check(spec: Component, axes: Sequence[Axis]) -> list[str]:
    """Return a line for each unsupported axis, for a missing package, and for an unknown search."""
    if not isinstance(spec, Grid | Optuna):
        return [f"sweep: found {type(spec).__name__}, expected sweep=grid or sweep=optuna"]
    if isinstance(spec, Grid):
        return [
            f"{a.key}: an interval is not supported in a grid; set values, or sweep=optuna"
            for a in axes
            if not a.values
        ]
    problems = []
    if not axes:
        example = "optimizer.lr=tag(log,interval(1e-4,1e-2))"
        problems.append(f"sweep=optuna: found no axis, expected a range, such as {example}")
    if importlib.util.find_spec("optuna") is None:
        problems.append(f"sweep=optuna: needs optuna, not installed here: {install('sweep')}")
    return problems


class Combinations:
    """Grid search; the last axis varies fastest."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        keys = [axis.key for axis in axes]
        self.trials = [dict(zip(keys, v, strict=True)) for v in itertools.product(*(axis.values for axis in axes))]
        self.count = len(self.trials)
        self._next = iter(enumerate(self.trials))

    def ask(self) -> tuple[int, Params] | None:
        return next(self._next, None)

    def tell(self, number: int, values: Sequence[float] | None, pruned: bool = False) -> None: ...

    def report(self, number: int, validation: int, value: float) -> bool:
        return False


class Study:
    """Optuna's study, on the disk: a sweep that was killed finds its trials there, the begun ones too."""

    def __init__(
        self, spec: Optuna, axes: Sequence[Axis], folder: Path, uid: str, directions: Sequence[str], pruning: bool
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.axes, self.uid = optuna, axes, uid
        self.study = _opened(optuna, spec, folder, directions, _pruner(optuna, spec, pruning))
        earlier = self.study.get_trials(deepcopy=False)
        self.study.sampler = _sampler(optuna, _seed(spec, uid, len(earlier)), spec)
        ours = [trial for trial in earlier if trial.user_attrs.get(OURS) == uid]
        self._begun = [trial for trial in ours if trial.state.name == "RUNNING"]
        failed = self._again([trial for trial in ours if trial.state.name == "FAIL"], earlier)
        self.count, self.total = spec.trials, spec.trials + failed
        self._trials: dict[int, Any] = {}

    def _again(self, failed: Sequence[Any], earlier: Sequence[Any]) -> int:
        """Queue the failed trials once more; return how many trials do not count for that."""
        done = [trial.params for trial in earlier if trial.state.name in ("COMPLETE", "PRUNED")]
        done += [trial.system_attrs.get("fixed_params") for trial in earlier if trial.state.name == "WAITING"]
        for trial in failed:
            if trial.params not in done:
                done.append(trial.params)
                self.study.enqueue_trial(trial.params)
        return len(failed)

    def ask(self) -> tuple[int, Params] | None:
        if self._begun:
            kept = self._begun.pop(0)
            trial = self.optuna.trial.Trial(self.study, kept._trial_id)
        elif sum(t.state.name != "WAITING" for t in self.study.get_trials(deepcopy=False)) < self.total:
            trial = self.study.ask()
            trial.set_user_attr(OURS, self.uid)
        else:
            return None
        self._trials[trial.number] = trial
        return trial.number, {axis.key: _suggested(trial, axis) for axis in self.axes}

    def tell(self, number: int, values: Sequence[float] | None, pruned: bool = False) -> None:
        state = self.optuna.trial.TrialState
        if values is not None:
            self.study.tell(self._trials.pop(number), list(values))
        else:
            self.study.tell(self._trials.pop(number), state=state.PRUNED if pruned else state.FAIL)

    def report(self, number: int, validation: int, value: float) -> bool:
        trial = self._trials[number]
        if validation in trial.storage.get_trial(trial._trial_id).intermediate_values:
            return False  # before an interruption
        trial.report(value, validation)
        return bool(trial.should_prune())


def _opened(optuna: Any, spec: Optuna, folder: Path, directions: Sequence[str], pruner: Any) -> Any:
    """Open the study, or create it.

    Raises:
        ConfigError: the database cannot be opened.
    """
    from sqlalchemy.pool import NullPool

    own, wanted = folder.resolve() / "study.db", [optuna.study.StudyDirection[d.upper()] for d in directions]
    for left in reversed(range(TRIES)):
        try:
            storage: Any = spec.storage
            if storage is None:  # not by a URL, in which a path may mean something else
                options = {"creator": lambda: sqlite3.connect(own, timeout=60), "poolclass": NullPool}
                storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs=options)
            name = spec.study or ("sweep" if spec.storage is None else str(folder.resolve()))
            return optuna.create_study(
                storage=storage, study_name=name, directions=wanted, load_if_exists=True, pruner=pruner
            )
        except Exception as error:
            if not left:
                why = " ".join(str(error).split())[:200]
                raise ConfigError(f"sweep.storage: {spec.storage or own} cannot be opened: {why}") from error
            time.sleep(1)
    return None


def _seed(spec: Optuna, uid: str, earlier: int) -> int:
    """Return the seed of a sampler that begins after ``earlier`` trials, so that it repeats no draw of any sampler."""
    if spec.storage is None:
        return spec.seed + earlier
    return zlib.crc32(f"{spec.seed} {uid} {earlier}".encode())


def _suggested(trial: Any, axis: Axis) -> str:
    """Ask the sampler for a value of an axis; it repeats its answer if the trial was asked before."""
    if axis.values and not axis.ordered:
        return str(trial.suggest_categorical(axis.key, axis.values))
    if axis.values:  # by its place
        return axis.values[trial.suggest_int(axis.key, 0, len(axis.values) - 1)]
    if axis.whole:
        return str(trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.log))
    return repr(float(trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)))


def _sampler(optuna: Any, seed: int, spec: Optuna) -> Any:
    if spec.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if spec.sampler == "nsgaii":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, spec.startup))
    # running trials count as bad, so that parallel proposals differ
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=spec.startup, constant_liar=True)


def _pruner(optuna: Any, spec: Optuna, pruning: bool) -> Any:
    if spec.pruner == "none" or not pruning:
        return optuna.pruners.NopPruner()
    if spec.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=spec.startup)


def importance(axes: Sequence[str], rows: Sequence[Mapping[str, str]], values: Sequence[float]) -> dict[str, float]:
    """Compute the share of an objective's variance that each parameter explains (fANOVA, Hutter et al. 2014; Optuna).

    Args:
        axes: the parameters.
        rows: their values in each trial.
        values: the objective of each trial.

    Returns:
        shares that add up to 1, the largest first; empty where Optuna is missing or nothing can be told.
    """
    lacking = any(importlib.util.find_spec(name) is None for name in ("optuna", "sklearn"))
    rows, values = rows[:MOST], values[:MOST]
    if lacking or len(rows) < FEWEST or max(values) - min(values) <= 1e-9 * abs(max(values)):
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    varied = [key for key in axes if len({row[key] for row in rows}) > 1]
    given = {key: _distribution(optuna, [row[key] for row in rows]) for key in varied}
    study = optuna.create_study()
    for row, value in zip(rows, values, strict=True):
        params = {key: convert(row[key]) for key, (_, convert) in given.items()}
        kinds = {key: kind for key, (kind, _) in given.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _distribution(optuna: Any, values: Sequence[str]) -> tuple[Any, Any]:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return optuna.distributions.CategoricalDistribution(sorted(set(values))), str
    low, high = min(numbers), max(numbers)
    return optuna.distributions.FloatDistribution(low, high, log=low > 0 and high / low >= 100), float
