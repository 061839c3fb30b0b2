"""The run's schema, and the check of a config against it: every problem at once, before anything runs."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from toolkit.config import build, contracts, paths, process
from toolkit.config.compose import HEADLINE, Composed, Loaded, compose, unknown
from toolkit.config.contracts import Component, Features, Launcher, Optimizer, Schedule, Tokenizer
from toolkit.config.source import OF_A_SWEEP, PACKAGES, PARTS
from toolkit.config.spec import as_data, is_spec, option, out_of_bounds, problems
from toolkit.errors import ConfigError

if TYPE_CHECKING:
    from toolkit.data.source import Source
    from toolkit.models.spec import Model
    from toolkit.tasks.spec import Task
    from toolkit.training.spec import Trainer
else:
    Source = Model = Task = Trainer = Any  # get_type_hints needs the names; config imports nothing above it

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")  # YAML 1.1 takes 1e-3, which has no dot, for text
OPTIONAL = ("features", "tokenizer")  # groups of which a run may have none
EXPECTED = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
Accepted = Literal["dataset", "seed", "accumulate", "plan", "tokenizer", "features"]


@dataclass(frozen=True)
class Run:
    """Checked config of one run."""

    recipe: str = option(doc="name of a file in recipes/")
    dataset: Source = option(doc="source of the examples")
    features: Features | None = option(doc="features of audio or images; none if the task has neither")
    tokenizer: Tokenizer | None = option(doc="mapping from text to token ids; none if the task has no text")
    model: Model = option(doc="network")
    task: Task = option(doc="loss, decoding and metrics")
    optimizer: Optimizer = option(doc="update rule")
    schedule: Schedule = option(doc="learning rate as a function of the step")
    trainer: Trainer = option(doc="batches, length, precision, checkpoints")
    run_dir: str = option(doc="run folder")
    backend: Literal["torch", "tf"] = option("torch", "framework")
    seed: int = option(0, "random seed of initial weights, batch order and augmentation", ge=0, lt=2**63)
    resume: str | None = option(None, "run folder to resume; auto: run_dir, if it has a checkpoint")
    evaluate: str | None = option(None, "run folder to evaluate, without training")
    check: bool = option(False, "describe the data and stop before a framework is loaded")
    accept: tuple[Accepted, ...] = option((), "with resume: what may differ from the checkpoint")
    allow: tuple[str, ...] = option(
        (), "packages outside the toolkit whose specs may be named; on the command line only"
    )


@dataclass(frozen=True)
class Sweep:
    """Checked config of a sweep, beside the config of its runs."""

    sweep: Component = option(doc="search over the trials")
    launcher: Launcher = option(doc="machine or cluster that runs the jobs")
    ranges: tuple[str, ...] = option((), "more axes, each an override with several values")
    seeds: int = option(1, "runs of each trial, with seed, seed + 1, ...", ge=1)
    objectives: tuple[str, ...] = option((), "figures to optimize; []: the task's monitor, on validation")


def check(arguments: Sequence[str], folders: Sequence[Path] = ()) -> Run:
    """Compose and check the config that command-line arguments describe.

    Args:
        arguments: Hydra overrides.
        folders: more folders of groups and recipes, laid out as ``conf/``.

    Raises:
        ConfigError: with every problem.
    """
    return check_both(arguments, folders)[0]


def check_both(
    arguments: Sequence[str], folders: Sequence[Path] = (), loaded: Loaded | None = None
) -> tuple[Run, Sweep]:
    """Check the config of a run and of the sweep that the run may be a job of.

    Args:
        arguments, folders: see :func:`check`.
        loaded: see :func:`toolkit.config.compose.compose`.

    Raises:
        ConfigError: with every problem.
    """
    run, sweep, found = _checked(arguments, folders, complete=True, loaded=loaded)
    if found or run is None or sweep is None:
        raise ConfigError(found, HEADLINE)
    return run, sweep


def check_shown(arguments: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Check a config that is only shown: values may be missing, and the framework too.

    Raises:
        ConfigError: with every problem.
    """
    *_, found = _checked(arguments, folders, complete=False)
    if found:
        raise ConfigError(found, HEADLINE)


def _checked(
    arguments: Sequence[str], folders: Sequence[Path], complete: bool, loaded: Loaded | None = None
) -> tuple[Run | None, Sweep | None, list[str]]:
    composed = compose(arguments, folders, loaded)
    found = list(composed.problems)
    values = _values(composed, Sweep, found, complete)
    sweep = Sweep(**values) if values is not None else None
    run = _run(composed, found, complete)
    backend = composed.config.get("backend")
    needed = complete and composed.config.get("check") is not True  # a check of the data loads no framework
    if needed and backend in process.FRAMEWORKS and (line := process.missing(backend)):
        found.append(line)
    return run, sweep, list(dict.fromkeys(found))


def resolve(config: Mapping[str, Any], allow: Sequence[str] = ()) -> Run:
    """Return the run of a composed config, such as a run folder's ``config.yaml``.

    Args:
        config: plain nested data, or an OmegaConf node.
        allow: packages beside the toolkit whose specs may be named. The config's own ``allow`` is ignored, since a
            config may come from someone else.

    Raises:
        ConfigError: with every problem.
    """
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    found: list[str] = []
    run = _run(Composed(dict(typing.cast(Mapping[str, Any], plain)), [], set(), {}, tuple(allow)), found, complete=True)
    if found or run is None:
        raise ConfigError(found, HEADLINE)
    return run


def plain(run: Run) -> dict[str, Any]:
    """Return the config that describes ``run``, as nested data for YAML or JSON; :func:`resolve` is its inverse."""
    return {f.name: _component(getattr(run, f.name)) for f in dataclasses.fields(run)}


def _component(value: Any) -> Any:
    """Return a field of a run as plain data, for a component with its class in ``_target_``."""
    kind, data = type(value), as_data(value)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}"} | data if is_spec(kind) else data


def _values(composed: Composed, kind: type[Any], found: list[str], complete: bool) -> dict[str, Any] | None:
    """Return the values of the top-level keys that are fields of ``kind``; None when one is bad or missing."""
    reader, values, hints = _Reader(composed, complete), {}, typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in composed.absent:
            continue
        node = composed.config.get(field.name, field.default)
        if field.name in PACKAGES:
            values[field.name] = reader.component(field.name, node)
        else:
            values[field.name] = reader.field(field.name, node, hints[field.name], field)
    found += reader.found
    return None if reader.found or len(values) < len(hints) or _BAD in values.values() else values


def _run(composed: Composed, found: list[str], complete: bool) -> Run | None:
    names = [*Run.__dataclass_fields__, *OF_A_SWEEP]
    found += [unknown(str(key), names, composed.origins.get(str(key))) for key in composed.config.keys() - set(names)]
    values = _values(composed, Run, found, complete)
    allow = composed.config.get("allow")
    if isinstance(allow, list) and allow and list(map(str, allow)) != list(composed.allow):
        origin = composed.origins.get("allow", "the config")
        if origin == "the command line":
            found.append("allow: found a change to a part of it, expected the whole list, allow=[...]")
        else:
            found.append(f"allow: found in {origin}, expected on the command line only; set allow=[...] there")
    if found or values is None or composed.absent:
        return None
    run = Run(**values | {"allow": composed.allow})
    if run.resume and run.evaluate:
        found.append("evaluate: evaluate is not supported with resume; set one of them")
    if run.check and (run.resume or run.evaluate):
        key = "resume" if run.resume else "evaluate"
        found.append(f"check: true is not supported with {key}; set one of them")
    found += [f"{key}: {message}" for key, message in run.dataset.mismatches(run)]
    for group in PARTS:
        component: Component | None = getattr(run, group)
        if component is not None:
            found += [f"{group}.{field}: {message}" for field, message in component.check_run(run)]
    return run


_BAD = object()  # in place of a value that was reported


class _Reader:
    """Converter of plain data to typed values by their hints, which collects a line for each mismatch."""

    def __init__(self, composed: Composed, complete: bool) -> None:
        self.composed = composed
        self.complete = complete
        self.found: list[str] = []

    def unknown(self, key: str, names: Sequence[str]) -> None:
        parent = key.rpartition(".")[0]
        names = [f"{parent}.{name}" if parent else name for name in names]
        self.found.append(unknown(key, names, self.composed.origins.get(key)))

    def component(self, group: str, node: Any) -> Any:
        if group in OPTIONAL and not node:
            return None
        if not isinstance(node, Mapping) or "_target_" not in node:
            found = "???" if node is dataclasses.MISSING else node
            self.found.append(f"{group}: found {found!r}, expected a component with _target_ and its fields")
            return _BAD
        try:
            kind = build.find(node["_target_"], self.composed.allow, PACKAGES[group])
        except ConfigError as error:
            self.found += [f"{group}._target_: {line}" for line in error.problems]
            return _BAD
        if breach := contracts.breach(group, kind):
            self.found.append(f"{group}._target_: {node['_target_']} {breach}")
            return _BAD
        return self.spec(group, {key: value for key, value in node.items() if key != "_target_"}, kind)

    def spec(self, path: str, node: Mapping[str, Any], kind: type[Any]) -> Any:
        """Return an instance of a spec class; ``_BAD`` when a field is bad, after reading all of them."""
        fields = {field.name: field for field in dataclasses.fields(kind)}
        hints = typing.get_type_hints(kind)
        before = len(self.found)
        for key in node.keys() - fields.keys():
            if str(key).startswith("_") and str(key).endswith("_"):
                self.found.append(f"{path}.{key}: not allowed in a config, which names specs and their fields only")
            else:
                self.unknown(f"{path}.{key}", list(fields))
        values = {
            name: self.field(f"{path}.{name}", node.get(name, field.default), hints[name], field)
            for name, field in fields.items()
        }
        if any(value is _BAD for value in values.values()):
            for name, value in values.items():
                if value is not _BAD and not is_spec(type(value)):
                    self.found += [f"{path}.{name}: {line}" for line in out_of_bounds(value, fields[name].metadata)]
            return _BAD
        made = kind(**values)
        self.found += [f"{path}.{name}: {line}" for name, line in problems(made)]
        return made if len(self.found) == before else _BAD

    def field(self, path: str, value: Any, hint: Any, field: Any) -> Any:
        if path in self.composed.absent:
            return _BAD
        if value is dataclasses.MISSING or value == "???":
            if self.complete:
                expected = "" if hint is Any else f"{_name(hint)}: "
                self.found.append(f"{path}: not given ({expected}{field.metadata['doc']}); set {path}=...")
            return _BAD
        made = self.value(path, value, hint)
        if path in paths.FIELDS and isinstance(made, str):
            if not made.strip():
                self.found.append(f"{path}: found an empty path, expected a folder; set {path}=FOLDER, or leave it out")
                return _BAD
            made = paths.expand(made)
            if made.startswith("~"):
                self.found.append(f"{path}: found {made!r}, expected the name of a user after ~, or './{made}'")
                return _BAD
            return made
        if made is not _BAD and "." not in path:
            self.found += [f"{path}: {line}" for line in out_of_bounds(made, field.metadata)]
        return made

    def value(self, path: str, value: Any, hint: Any) -> Any:
        """Return ``value`` converted to the type ``hint``."""
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if is_spec(hint):
            if isinstance(value, hint):
                return value  # a spec's own default
            if isinstance(value, Mapping):
                return self.spec(path, value, hint)
        elif origin in (Union, types.UnionType):
            if value is None and type(None) in inner:
                return None
            for kind in inner:
                made = self.value(path, value, kind) if _nested(kind, value) else _scalar(value, kind)
                if made is not _BAD or _nested(kind, value):
                    return made
        elif origin is tuple:
            if isinstance(value, (list, tuple)):
                hints = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
                if len(hints) == len(value):
                    made = [
                        self.value(f"{path}.{i}", item, h) for i, (item, h) in enumerate(zip(value, hints, strict=True))
                    ]
                    return _BAD if any(item is _BAD for item in made) else tuple(made)
        elif (made := _scalar(value, hint)) is not _BAD:
            return made
        self.found.append(f"{path}: found {_shown(value)}, expected {_name(hint)}")
        return _BAD


def _nested(hint: Any, value: Any) -> bool:
    """Tell whether ``value`` and ``hint`` are both nested."""
    kind = Mapping if is_spec(hint) else (list, tuple) if typing.get_origin(hint) is tuple else ()
    return isinstance(value, kind)


def _scalar(value: Any, hint: Any) -> Any:
    if hint is Any:
        return value
    if typing.get_origin(hint) is Literal:
        for choice in typing.get_args(hint):
            # precision=32 is a number to YAML, and "32" to the spec
            if type(value) is type(choice) and value == choice:
                return choice
            if isinstance(choice, str) and type(value) is int and str(value) == choice:
                return choice
        return _BAD
    if hint is float and not isinstance(value, bool):
        if isinstance(value, (int, float)):
            return _number(value)
        if isinstance(value, str) and NUMBER.fullmatch(value):
            return float(value)
    if hint is str and type(value) is int:
        return str(value)  # a folder called 2024
    return value if type(value) is hint else _BAD


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits, which the bounds then refuse
        return math.inf if value > 0 else -math.inf


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _name(hint: Any) -> str:
    """Describe a type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, types.UnionType):
        return " or ".join("null" if kind is type(None) else _name(kind) for kind in inner)
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return f"a list, each element {_name(inner[0])}"
        return f"a list of {len(inner)} values ({', '.join(map(_name, inner))})"
    if is_spec(hint):
        return f"the fields of {hint.__name__}"
    return EXPECTED.get(hint, getattr(hint, "__name__", str(hint)))
