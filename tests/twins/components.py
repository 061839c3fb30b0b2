"""The components that the twin tests compute, found in the toolkit's folders: none is named here."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator
from typing import Any, Literal

from tests.support import tiny
from tests.support.backend import ROOT
from tests.twins.content.base import columns
from toolkit.config import source as recipe_source
from toolkit.config.spec import is_spec, problems

# fields with no variant: the masks of native dropout differ by design, and the twins do not read what is monitored
LEFT = ("native_dropout", "monitor")


def specs(group: str) -> dict[str, type]:
    """Folder -> the component's spec class, for every folder of ``models``, ``features`` or ``tasks``."""
    found = {}
    for path in sorted(ROOT.glob(f"toolkit/{group}/*/spec.py")):
        module = importlib.import_module(f"toolkit.{group}.{path.parent.name}.spec")
        specs = [c for c in vars(module).values() if is_spec(c) and c.__module__ == module.__name__]
        inner = {type(field.default) for kind in specs for field in dataclasses.fields(kind)}
        outer = [kind for kind in specs if kind not in inner]
        assert len(outer) == 1, f"{path}: expected one spec that is no field of another, found {outer}"
        found[path.parent.name] = outer[0]
    return found


def first_model(kind: str) -> str:
    """The first model whose input is this kind of column."""
    return next(name for name, model in specs("models").items() if model.input == kind)


def tasks_of(model: type) -> list[str]:
    """The tasks that a model can be trained on."""
    ends = model.input, model.output
    found = [name for name, task in specs("tasks").items() if (task.input, task.output) == ends]
    assert found, f"toolkit/tasks: none maps {ends[0]} to {ends[1]}, as {model.__name__} does"
    return found


def features_of(task: type) -> list[str]:
    """The features that a task's columns can be learned with; none where they need none."""
    kinds = [columns()[kind] for kind in (task.input, task.target)]
    wanted = {kind.kind for kind in kinds if kind.group == "features"}
    found = [name for name, features in specs("features").items() if features.column in wanted]
    assert bool(found) == bool(wanted), f"toolkit/features: none for {wanted}, which {task.__name__} needs"
    return found


def variants(kind: type) -> Iterator[dict[str, Any]]:
    """Fields that make other small specs of a class than the default.

    They are those of the options in ``conf/``, and one at a time every other choice where a field has choices and every
    switch turned over.
    """
    found = [fields for target, fields in named() if target == f"{kind.__module__}.{kind.__qualname__}"]
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, default = hints[field.name], field.default
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        for other in (not default,) if hint is bool else choices:
            # what also needs another field has an option
            if other != default and field.name not in LEFT and not list(problems(kind(**{field.name: other}))):
                found.append({field.name: other})
    seen = [tiny.make(kind)]
    for fields in found:
        if (small := tiny.make(kind, **fields)) not in seen:
            seen.append(small)
            yield fields


def named() -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield the targets that the options in ``conf/`` name, with the fields that they set."""
    for group in ("model", "features", "task"):
        for name in recipe_source.options(group):
            target, fields = recipe_source.own_fields(group, name)
            yield target, {key: value for key, value in fields.items() if not str(value).startswith("${")}
