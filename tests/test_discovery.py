"""Everything that can be found is tested: recipes, options, specs. None is named here, so a new one is tested too."""

import dataclasses
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import toolkit
from tests.support.backend import BACKENDS, ROOT
from tests.support.component import (
    FOLDERS,
    OPTIONS,
    check_option,
    check_recipe,
    check_twins,
    kind_of,
    missing_twin,
)
from tests.support.trained import RECIPES
from toolkit.config import source
from toolkit.config.spec import is_spec


def test_there_is_something_to_find():
    assert RECIPES and {group for group, _ in OPTIONS} == set(source.GROUPS) - {"recipe"}
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


@pytest.mark.parametrize("group, name", OPTIONS)
def test_every_option_gives_a_run_on_its_backends(group, name):
    check_option(group, name)


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
    named = {kind for group, name in OPTIONS if (kind := kind_of(group, name))}
    above = {parent for kind in named for parent in kind.__mro__ if is_spec(parent)}
    return above | {field for kind in named for field in fields_of(kind)}


def test_every_spec_can_be_reached_from_some_option():
    assert {kind.__qualname__ for kind in specs()} - {kind.__qualname__ for kind in reached()} == set()
    assert len(specs()) > 15


COMPONENTS = sorted(
    {(group, kind) for group, name in OPTIONS if group in FOLDERS and (kind := kind_of(group, name))},
    key=lambda pair: (pair[0], pair[1].__name__),
)


@pytest.mark.parametrize("group, kind", COMPONENTS, ids=lambda value: getattr(value, "__name__", value))
def test_every_component_has_its_twins(group, kind):
    check_twins(group, kind)


def test_a_component_without_a_twin_is_missed(tmp_path):
    (tmp_path / "torch.py").write_text("class Thing:\n    pass\n")
    (tmp_path / "tf.py").write_text("class Thin:\n    def Thing(self):\n        pass\n")
    assert missing_twin(tmp_path, "Thing", "torch") is None
    assert missing_twin(tmp_path, "Thing", "tf") == f"{tmp_path}/tf.py has no Thing"
    (tmp_path / "tf.py").unlink()
    assert missing_twin(tmp_path, "Thing", "tf") == f"{tmp_path}/tf.py does not exist"


def test_every_folder_of_a_component_has_an_option():
    """So that what stands in a folder without being named in ``conf/`` is missed."""
    for group in FOLDERS:
        package = Path(importlib.import_module(source.PACKAGES[group]).__file__).parent
        folders = {file.parent.name for file in package.glob("*/*.py")}
        assert folders == {kind.__module__.split(".")[-2] for g, kind in COMPONENTS if g == group}


# --- a few steps of each recipe --------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_on_both_backends_and_they_tell_the_same_story(recipe, trained):
    check_recipe(recipe, trained)
