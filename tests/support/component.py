"""Demands of the tests on every recipe, option and component, whatever it is; none is named here.

    check_recipe(name, trained)      a small run on both backends: it learns, both alike, and its folder is complete
    check_option(group, name)        a run with it can be made on each backend, and its folder gives the run again
    check_twins(group, kind)         a spec has its twins in torch.py and tf.py beside it, or needs none

That the twins of a model, its features and its task compute the same is demanded in ``tests/twins``.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import made
from tests.support.backend import BACKENDS, ROOT
from tests.support.trained import RECIPES, Trained, checked, data_of
from toolkit.config import build
from toolkit.config import schema as config
from toolkit.config import source as recipe_source
from toolkit.training.spec import STRATEGIES

OPTIONS = sorted((file.parent.name, file.stem) for file in (ROOT / "conf").glob("*/*.yaml"))
TWINS = ("features", "tokenizer", "model", "task", "optimizer")  # groups whose specs have a twin in each framework
FOLDERS = (*TWINS, "schedule")  # groups with a folder for each component


# --- recipes ---------------------------------------------------------------------------------------------------------


def check_recipe(recipe: str, trained: Trained) -> None:
    """Check that a small run learns on both backends, with equal losses at first, and leaves a complete folder."""
    runs = {backend: trained.run(recipe, backend) for backend in BACKENDS}
    for folder in runs.values():
        check_results(folder, test=made.TEST)
    torch, tf = (losses(runs[backend]) for backend in BACKENDS)
    assert len(torch) == len(tf) == 4
    np.testing.assert_allclose(torch[:3], tf[:3], rtol=1e-5)  # ledger: 1e-6 at step 1, 1e-5 at steps 2 and 3
    assert len(set(torch)) == 4  # it moves


def check_results(folder: Path, test: int) -> None:
    """Check that a run folder has finite metrics of both splits, and a complete row for each ``test`` example."""
    results = json.loads((folder / "results.json").read_text())
    assert set(results["metrics"]) == {"validation", "test"}
    for metrics in results["metrics"].values():
        assert len(metrics) > 1 and "loss" in metrics
        assert all(math.isfinite(value) for value in metrics.values()), metrics
    rows = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == test
    for row in rows:
        assert isinstance(row["hypothesis"], str) and row["reference"] and math.isfinite(row["score"]), row


def losses(folder: Path) -> list[float]:
    """Return the training loss of each step in the log of a run."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["split"] == "train"]


# --- options ---------------------------------------------------------------------------------------------------------


def check_option(group: str, name: str) -> None:
    """Check that an option gives a run on each backend and kind of task, and its plain config the run again."""
    recipes = recipes_for(group, name)
    assert recipes, f"{group}={name} fits no recipe"
    kind = kind_of(group, name)
    path = ["dataset.path=/data"] if group == "dataset" and kind and "path" in kind.__dataclass_fields__ else []
    backends = (name,) if group == "backend" else backends_of(group, name)
    for recipe in recipes:
        run, sweep = config.check_both([f"recipe={recipe}", f"{group}={name}", *path, f"backend={backends[0]}"])
        assert run.backend == backends[0]
        if kind is not None:
            assert type(getattr(run if group in recipe_source.PARTS else sweep, group)) is kind
        for backend in backends:
            assert config.resolve(config.plain(run) | {"backend": backend}) == dataclasses.replace(run, backend=backend)


def kind_of(group: str, name: str) -> type[Any] | None:
    """Return the spec class that an option names, itself or through the option that it extends, if any."""
    target = recipe_source.own_fields(group, name)[0] if group in recipe_source.PACKAGES else None
    return build.find(target, (), recipe_source.PACKAGES[group]) if target else None


def recipes_for(group: str, name: str) -> list[str]:
    """Return a recipe of each kind of task that an option fits."""
    if group not in recipe_source.PACKAGES:
        return RECIPES
    kind = kind_of(group, name)
    first = {data_of(recipe): recipe for recipe in RECIPES}
    return [recipe for recipe in first.values() if fits(group, kind, checked(recipe))]


def fits(group: str, kind: type[Any] | None, run: config.Run) -> bool:
    """Compare the columns of an option with those of a run's task."""
    task = run.task
    match group, kind:
        case "features" | "tokenizer", None:
            return getattr(run, group) is None
        case "features" | "tokenizer", kind:
            return kind.column in (task.input, task.target)
        case "model", kind:
            return (kind.input, kind.output) == (task.input, task.output)
        case "task", kind:
            return (kind.input, kind.target) == (task.input, task.target)
        case "dataset", kind:
            return sorted(column.kind for column in kind.columns.values()) == sorted((task.input, task.target))
    return True


def backends_of(group: str, name: str) -> Sequence[str]:
    """Return the backends of an option: both, but for a trainer with a strategy that only one framework has."""
    strategy = recipe_source.own_fields(group, name)[1].get("strategy") if group == "trainer" else None
    return [backend for backend, known in STRATEGIES.items() if strategy in chain(*known)] or BACKENDS


# --- specs and their twins -------------------------------------------------------------------------------------------


def check_twins(group: str, kind: type[Any]) -> None:
    """Check that the twins of a spec stand in both files beside it; a group without twins has no such files."""
    folder = Path(sys.modules[kind.__module__].__file__ or "").parent
    for backend in BACKENDS:
        if group in TWINS:
            assert missing_twin(folder, kind.__name__, backend) is None
        else:
            assert not (folder / f"{backend}.py").exists()


def missing_twin(folder: Path, name: str, backend: str) -> str | None:
    """Return the problem with the twin of a spec; None if the file beside it has a class of that name."""
    file = folder / f"{backend}.py"
    if not file.is_file():
        return f"{file} does not exist"
    body = ast.parse(file.read_text("utf-8")).body
    classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
    return None if name in classes else f"{file} has no {name}"
