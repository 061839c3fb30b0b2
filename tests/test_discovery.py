"""Everything that can be found is tested: recipes, options, specs. None is named here, so a new one is tested too."""

import ast
import dataclasses
import functools
import importlib
import json
import math
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolkit
from tests.support import made, tiny
from toolkit.config import build
from toolkit.config import schema as config
from toolkit.config import source as recipe_source
from toolkit.config.spec import is_spec
from toolkit.data.columns.column import mismatches
from toolkit.training.spec import STRATEGIES

ROOT = Path(toolkit.__file__).parents[1]
BACKENDS = ("torch", "tf")
RECIPES = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))
OPTIONS = sorted((file.parent.name, file.stem) for file in (ROOT / "conf").glob("*/*.yaml"))
TWINS = ("features", "tokenizer", "model", "task", "optimizer")  # groups whose specs have a twin in each framework
FOLDERS = (*TWINS, "schedule")  # groups with a folder for each component


def test_there_is_something_to_find():
    assert RECIPES and {group for group, _ in OPTIONS} == set(recipe_source.GROUPS) - {"recipe"}
    assert {file.suffix for file in (ROOT / "recipes").iterdir()} == {".yaml", ".md"}
    assert {file.stem for file in (ROOT / "recipes").glob("*.md")} == set(RECIPES)


# --- recipes ---------------------------------------------------------------------------------------------------------

SAME = r"(?:[^\n]|\n# (?!\w[\w ]*: ))*?"  # as far as the next entry of a header
HEADER = {
    "what it trains, in the second line": r"\A# @package _global_\n# [A-Z].*[.:,]",
    "what it costs (# Cost: ... minutes, hours)": rf"^# Cost: {SAME}(second|minute|hour)",
    "the score to expect, with a number (# Score to expect)": rf"^# Score to expect\b{SAME}\d",
    "the paper with its year (# Paper: )": rf"^# Paper: {SAME}\b(19|20)\d\d\b",
}
FIGURES = r"^## Measured$(?:\n(?!## ).*)*?\n\| {}\b.*\d"  # a row of that section, not of a later one
PAGE = {
    "the section Measured": r"^## Measured$",
    "the section The twins": r"^## The twins$",
    "the section Other data": r"^## Other data$",
    "the section Speed": r"^## Speed$",
    "the published figure": r"^\*\*Published figure",
    "what is untested": r"^\*\*Untested",
    "the data's fingerprint": r"[Ff]ingerprint `[0-9a-f]{8,}`",
    "measured figures of torch": FIGURES.format("torch"),
    "measured figures of tf": FIGURES.format("tf"),
}


def lacking(text: str, wanted: dict[str, str], recipe: str) -> list[str]:
    """What of ``wanted`` a text does not have, the commands of the recipe included."""
    commands = {f"the command for {b}": rf"^(#   |    )scripts/run recipe={recipe} backend={b}$" for b in BACKENDS}
    return [what for what, pattern in (wanted | commands).items() if not re.search(pattern, text, re.M)]


def header(recipe: str) -> str:
    """The comment at the top of a recipe."""
    text = (ROOT / "recipes" / f"{recipe}.yaml").read_text("utf-8")
    return re.match(r"(#.*\n)*", text)[0]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_opens_with_what_its_user_wants_to_know(recipe):
    assert lacking(header(recipe), HEADER, recipe) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_has_a_page_of_results(recipe):
    page = ROOT / "recipes" / f"{recipe}.md"
    assert page.is_file(), f"recipes/{recipe}.md: no such file"
    text = page.read_text("utf-8")
    assert text.startswith(f"# `{recipe}`: results\n")
    assert lacking(text, PAGE, recipe) == []


@pytest.mark.parametrize("wanted, read", [(HEADER, header), (PAGE, lambda r: (ROOT / f"recipes/{r}.md").read_text())])
def test_a_line_that_is_left_out_is_missed(wanted, read):
    text = read(RECIPES[0])
    assert lacking(text, wanted, RECIPES[0]) == []
    for what, pattern in wanted.items():
        changed = text
        while found := re.search(pattern, changed, re.M):
            changed = changed[: found.start()] + changed[changed.find("\n", found.end()) + 1 :]
        assert what in lacking(changed, wanted, RECIPES[0])
    assert "the score to expect, with a number (# Score to expect)" in lacking(
        "# Score to expect: high\n# Paper: Author 1999\n", HEADER, RECIPES[0]
    )
    for backend in BACKENDS:
        changed = text.replace(f"backend={backend}\n", "\n")
        assert lacking(changed, wanted, RECIPES[0]) == [f"the command for {backend}"]


# --- options ---------------------------------------------------------------------------------------------------------


@functools.cache
def run_of(recipe: str) -> config.Run:
    return config.check([f"recipe={recipe}"])


@functools.cache
def domain(recipe: str) -> str:
    """The folder of made data that a recipe can be trained on."""
    found = [name for name, (option, _) in made.FOLDERS.items() if fits("dataset", kind_of("dataset", option), recipe)]
    assert len(found) == 1, f"recipe={recipe} fits {found} of the folders that tests/support/made.py makes"
    return found[0]


def kind_of(group: str, name: str) -> type[Any]:
    """The spec class that an option names, itself or through the option that it extends; NoneType of ``none``."""
    target, fields = recipe_source.own_fields(group, name)
    if (group, name, fields) in [(optional, "none", {}) for optional in config.OPTIONAL]:
        assert target is None
        return type(None)
    return build.find(target, (), recipe_source.PACKAGES[group])


def fits(group: str, kind: type[Any], recipe: str) -> bool:
    """Tell if a component is for the columns of a recipe."""
    run = run_of(recipe)
    task = run.task
    match group:
        case "dataset":
            return "columns" not in dict(mismatches(kind.columns, run))
        case "features" | "tokenizer":
            chosen = run.features if group == "features" else run.tokenizer
            return isinstance(chosen, kind) if chosen is None or kind is type(None) else chosen.column == kind.column
        case "model":
            return (kind.input, kind.output) == (task.input, task.output)
        case "task":
            return (kind.input, kind.target, kind.output) == (task.input, task.target, task.output)
    return True


def runs(group: str, name: str) -> Iterator[list[str]]:
    """Arguments that put an option into a recipe of each task whose columns it is for."""
    if group not in recipe_source.PACKAGES:
        yield from ([f"recipe={recipe}", f"{group}={name}"] for recipe in RECIPES)
        return
    kind = kind_of(group, name)
    given = ["dataset.path=/data"] if group == "dataset" and "path" in kind.__dataclass_fields__ else []
    every = {type(run_of(recipe).task): recipe for recipe in RECIPES if fits(group, kind, recipe)}
    yield from ([f"recipe={recipe}", f"{group}={name}", *given] for recipe in every.values())


def able(group: str, name: str) -> Sequence[str]:
    """The backends of an option: both, but for a trainer with a strategy that one framework alone has."""
    strategy = recipe_source.own_fields(group, name)[1].get("strategy") if group == "trainer" else None
    return [backend for backend, known in STRATEGIES.items() if strategy in chain(*known)] or BACKENDS


@pytest.mark.parametrize("group, name", OPTIONS)
def test_every_option_gives_a_run_on_both_backends(group, name):
    tried = list(runs(group, name))
    assert tried, f"there is no recipe that {group}={name} is for"
    for arguments in tried:
        for backend in (name,) if group == "backend" else able(group, name):
            run, sweep = config.check_both([*arguments, f"backend={backend}"])
            assert run.backend == backend
            if group in recipe_source.PACKAGES:
                assert type(getattr(run if group in recipe_source.PARTS else sweep, group)) is kind_of(group, name)
                # what the run folder keeps of it gives it again
                assert config.resolve(config.plain(run)) == run


# --- specs -----------------------------------------------------------------------------------------------------------


def specs() -> list[type[Any]]:
    """Every spec class of the toolkit."""
    found = {}
    for module in pkgutil.walk_packages(toolkit.__path__, "toolkit."):
        if module.name.rpartition(".")[2] not in (*BACKENDS, "run"):
            for kind in vars(importlib.import_module(module.name)).values():
                if is_spec(kind) and kind.__module__ == module.name:
                    found[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return list(found.values())


def fields_of(kind: type[Any]) -> set[type[Any]]:
    """The specs that a spec has as fields."""
    return {type(f.default) for f in dataclasses.fields(kind) if is_spec(type(f.default))}


def reached() -> set[type[Any]]:
    """The specs that the options name, what these inherit, and what they have as fields."""
    named = {kind_of(group, name) for group, name in OPTIONS if group in recipe_source.PACKAGES} - {type(None)}
    above = {parent for kind in named for parent in kind.__mro__ if is_spec(parent)}
    return above | {field for kind in named for field in fields_of(kind)}


def test_every_spec_can_be_reached_from_some_option():
    assert {kind.__qualname__ for kind in specs()} - {kind.__qualname__ for kind in reached()} == set()
    assert len(specs()) > 15


def twin(folder: Path, name: str, backend: str) -> str | None:
    """Return the problem with the twin of a spec; None if the file beside it has a class of that name."""
    file = folder / f"{backend}.py"
    if not file.is_file():
        return f"{file} does not exist"
    body = ast.parse(file.read_text("utf-8")).body
    classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
    return None if name in classes else f"{file} has no {name}"


COMPONENTS = sorted(
    ((group, kind) for group, kind in {(g, kind_of(g, n)) for g, n in OPTIONS if g in FOLDERS} if is_spec(kind)),
    key=lambda pair: (pair[0], pair[1].__name__),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("group, kind", COMPONENTS, ids=lambda value: getattr(value, "__name__", value))
def test_every_component_has_its_twins(group, kind, backend):
    folder = Path(sys.modules[kind.__module__].__file__).parent
    if group in TWINS:
        assert twin(folder, kind.__name__, backend) is None
    else:
        assert not (folder / f"{backend}.py").exists()


def test_a_component_without_a_twin_is_missed(tmp_path):
    (tmp_path / "torch.py").write_text("class Thing:\n    pass\n")
    (tmp_path / "tf.py").write_text("class Thin:\n    def Thing(self):\n        pass\n")
    assert twin(tmp_path, "Thing", "torch") is None
    assert twin(tmp_path, "Thing", "tf") == f"{tmp_path}/tf.py has no Thing"
    (tmp_path / "tf.py").unlink()
    assert twin(tmp_path, "Thing", "tf") == f"{tmp_path}/tf.py does not exist"


def test_every_folder_of_a_component_has_an_option():
    """So that what stands in a folder without being named in ``conf/`` is missed."""
    for group in FOLDERS:
        package = Path(importlib.import_module(recipe_source.PACKAGES[group]).__file__).parent
        folders = {file.parent.name for file in package.glob("*/*.py")}
        assert folders == {kind.__module__.split(".")[-2] for g, kind in COMPONENTS if g == group}


# --- a few steps of each recipe --------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_on_both_backends_and_they_tell_the_same_story(recipe, tmp_path):
    option, make = made.FOLDERS[domain(recipe)]
    data = make(tmp_path / "data")
    arguments = [f"recipe={recipe}", f"dataset={option}", f"dataset.path={data}"]
    arguments += [*tiny.components(*arguments), *tiny.SHORT]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOOLKIT_CACHE": str(tmp_path / "cache")}
    processes = {}
    for backend in BACKENDS:  # both at a time
        command = [sys.executable, "-m", "toolkit.run", *arguments, f"backend={backend}"]
        with open(tmp_path / f"{backend}.log", "w") as log:
            command.append(f"run_dir={tmp_path / backend}")
            processes[backend] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    for backend, process in processes.items():
        assert process.wait(300) == 0, (tmp_path / f"{backend}.log").read_text()[-4000:]
    for backend in BACKENDS:
        check_results(tmp_path / backend, test=made.TEST)
    torch, tf = (losses(tmp_path / backend) for backend in BACKENDS)
    assert len(torch) == len(tf) == 4
    np.testing.assert_allclose(torch[:3], tf[:3], rtol=1e-5)  # ledger: 1e-6 at step 1, 1e-5 at steps 2 and 3
    assert len(set(torch)) == 4  # it moves


def check_results(folder: Path, test: int) -> None:
    """A run folder has measured something and says what was predicted."""
    results = json.loads((folder / "results.json").read_text())
    assert set(results["metrics"]) == {"validation", "test"}
    for found in results["metrics"].values():
        assert len(found) > 1 and "loss" in found
        assert all(math.isfinite(value) for value in found.values()), found
    rows = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == test
    for row in rows:
        assert isinstance(row["hypothesis"], str) and row["reference"] and math.isfinite(row["score"]), row


def losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["split"] == "train"]
