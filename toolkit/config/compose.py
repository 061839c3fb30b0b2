"""Composition of a config with Hydra, which collects every problem."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from toolkit.config import paths, source
from toolkit.config.overrides import literal, one_path, parse, shown
from toolkit.config.source import (
    GROUPS,
    NOTHING,
    Request,
    SearchPath,
    Source,
    chosen,
    leaves,
    locate,
    one_line,
    options,
    read,
)
from toolkit.errors import ConfigError

HEADLINE = "the config cannot be run:"
MOST_VALUES = 10_000  # of an axis of a sweep; range(0,1e12) would fill the memory


@dataclass
class Composed:
    """Config with its problems.

    Args:
        config: plain nested dicts, interpolations resolved; ``???`` where a value is missing.
        problems: one line each.
        absent: groups without a valid choice and keys without a value; each has a problem.
        origins: dotted key -> the file or override that set it last.
        allow: see :class:`Request`.
    """

    config: dict[str, Any]
    problems: list[str]
    absent: set[str]
    origins: dict[str, str]
    allow: tuple[str, ...]


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name most similar to ``name``, if any; siblings of a dotted name come first."""
    names = list(names)
    parent, _, last = name.rpartition(".")

    def closest(among: Iterable[str], cutoff: float) -> str | None:
        ends = {full.rpartition(".")[2]: full for full in reversed(list(among))}
        close = difflib.get_close_matches(last, ends, n=1, cutoff=cutoff)
        return ends[close[0]] if close else None

    beside = [full for full in names if full.rpartition(".")[0] == parent]
    if found := closest(beside, 0.6):
        return found
    if not beside and (close := difflib.get_close_matches(name, names, n=1, cutoff=0.6)):
        return close[0]
    return closest(names, 0.8)


def unknown(key: str, names: Iterable[str], origin: str | None = None) -> str:
    """Return the line about a key that does not exist."""
    names = list(names)
    place = f" (in {origin})" if origin else ""
    if close := nearest(key, names):
        return f"{key}: unknown key{place}; did you mean {close}?"
    parent = key.rpartition(".")[0]
    beside = sorted({name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == parent})
    return f"{key}: unknown key{place}" + (f" (there are: {', '.join(beside)})" if beside else "")


@dataclass(frozen=True)
class Axis:
    """Key that a sweep varies, with its values.

    Args:
        key: dotted name or group.
        values: as they stand in an override; empty for an interval.
        ordered: the values are a range.
        low, high: ends of an interval, both included.
        log: interval on a logarithmic scale.
        whole: interval of integers.
    """

    key: str
    values: tuple[str, ...] = ()
    ordered: bool = False
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def samples(self) -> tuple[str, ...]:
        """Values that represent the axis in a check."""
        return self.values or (repr(self.low), repr(self.high))


def swept(arguments: Sequence[str]) -> bool:
    """Tell whether overrides ask for a sweep without ``-m``.

    Raises:
        ConfigError: they do not, but set fields of a sweep.
    """
    if any(re.match(r"\+*(seeds|sweep)=", argument) for argument in arguments):
        return True
    if found := [argument for argument in arguments if re.match(r"\+*(launcher|objectives|ranges)\b", argument)]:
        raise ConfigError([f"{argument}: a setting of a sweep; add -m" for argument in found], HEADLINE)
    return False


def axes(arguments: Sequence[str], problems: list[str]) -> tuple[list[str], list[Axis]]:
    """Split overrides into those with one value, unchanged, and axes with several.

    ``a,b,c``, ``choice(a,b)``, ``range(1,10)``, ``interval(1e-4,1e-2)``, ``tag(log,interval(1e-4,1e-2))`` and
    ``int(interval(1,8))`` are Hydra's own forms.
    """
    fixed, found = [], []
    for override in parse(arguments, problems):
        line = str(override.input_line)
        if re.match(r"hydra([./]|$)", override.key_or_group):
            problems.append(
                f"{line}: settings of Hydra are not supported in a sweep; set sweep=, launcher= and run_dir="
            )
        elif not override.is_sweep_override():
            fixed.append(line)
        elif problem := one_path(override):
            problems.append(problem)
        else:
            try:
                axis = _axis(override)
            except (ValueError, TypeError, ArithmeticError, HydraException) as error:  # of Hydra's own arithmetic
                problems.append(f"{line}: {one_line(error)}")
                continue
            if axis is None:
                problems.append(f"{line}: expected values a,b,c or choice, range or interval, not shuffled")
            elif len(axis.values) > MOST_VALUES:
                problems.append(f"{line}: more than {MOST_VALUES:,} values, expected fewer; set interval(LOW,HIGH)")
            else:
                found.append(axis)
    return fixed, found


def _axis(override: Override) -> Axis | None:
    key, value = override.get_key_element().lstrip("+"), override.value()
    if isinstance(value, Glob) or getattr(value, "shuffle", False):
        return None  # only Hydra's own sweepers support these
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or not low < high:
            return None
        whole = isinstance(low, int) and isinstance(high, int)
        return Axis(key, low=low, high=high, log="log" in value.tags, whole=whole)
    if override.is_choice_sweep() or override.is_range_sweep():
        values = tuple(dict.fromkeys(map(str, islice(override.sweep_string_iterator(), MOST_VALUES + 1))))
        return Axis(key, values, isinstance(value, RangeSweep)) if values else None
    return None


def prepare(arguments: Sequence[str], folders: Sequence[Path] = ()) -> tuple[list[Override], list[str]]:
    """Register the toolkit's files with Hydra, for these arguments.

    Returns:
        the overrides that can be parsed, and problems.
    """
    version.setbase("1.3")
    problems: list[str] = []
    overrides = parse(arguments, problems)
    single = {o.key_or_group: o.value() for o in overrides if not o.is_sweep_override() and not o.is_delete()}
    places = [Path(os.path.realpath(paths.expand(str(folder)))) for folder in folders]
    source.request = Request(folders=tuple(folder for folder in places if os.path.isdir(folder)))
    source.origins.clear()
    read.cache_clear()
    problems += [f"--config-dir {folder}: no such folder" for folder in places if not os.path.isdir(folder)]
    allow = single.get("allow", [])
    source.request.allow = tuple(map(str, allow if isinstance(allow, list) else [allow]))
    source.request.choices = {
        group: name
        for group, name in single.items()
        if group in GROUPS and isinstance(name, str) and locate(group, name)
    }
    if single.get("resume") == "auto" and "run_dir" not in single:
        problems.append("resume=auto: found no run_dir; set run_dir=FOLDER, the run to resume or to start")
    for key in ("evaluate", "resume"):
        if single.get(key) not in (None, "auto", ""):
            source.request.earlier = True
            folder = paths.expand(str(single[key]))
            try:
                base, source.request.base_file = earlier(Path(folder), f"{key}: ")
            except ConfigError as error:
                problems += error.problems
            else:
                source.request.base = None if "recipe" in single else base
                source.request.run_dir = folder if key == "resume" else None
    Plugins.instance().register(Source)
    Plugins.instance().register(SearchPath)
    setup_globals()
    return overrides, problems


def earlier(folder: Path, prefix: str = "") -> tuple[dict[str, Any], str]:
    """Return the config of a run folder, and the name of its file.

    Args:
        folder: of the run.
        prefix: of the message: the key that names the folder.

    Raises:
        ConfigError: there is none.
    """
    file = folder / "config.yaml"
    if not os.path.isdir(folder):  # which, unlike Path's, never raises
        raise ConfigError(f"{prefix}{folder} is not a folder, expected a run folder")
    if not os.path.isfile(file):
        raise ConfigError(f"{prefix}{folder} has no config.yaml, expected a run folder")
    if (folder / "tokenizer").is_dir() and not (folder / "learned").is_dir():  # as run folders were before format 4
        raise ConfigError(f"{prefix}{folder} was left by an earlier version; commit 7879d9e of the toolkit reads it")
    return read(file)[0], str(file)


Loaded = dict[str, tuple[DictConfig, dict[str, str]]]  # options -> their config before any value is set, its origins


def compose(arguments: Sequence[str], folders: Sequence[Path] = (), loaded: Loaded | None = None) -> Composed:
    """Compose the config of one run as Hydra does, continuing after each problem.

    Args:
        arguments: the overrides of the command line.
        folders: more folders of groups and recipes, laid out as ``conf/``.
        loaded: the same for several configs of files that do not change, to load each choice of options once.
    """
    overrides, problems = prepare(arguments, folders)
    for override in list(overrides):
        if override.is_sweep_override():
            path = literal(str(override.input_line))
            other = f"for one path with a comma, write {shown(path)}" if path else "write a list [a,b]"
            problems.append(f"{override.input_line}: several values; add -m for one run per value, or {other}")
            overrides.remove(override)
            overrides += [path] if path else []
    choices, hydras, values = _sorted(overrides, problems)
    picked, absent = _pick(choices, problems)
    config = _load(picked, hydras, problems, loaded)
    with open_dict(config):
        del config["hydra"]
    known = {*leaves(_container(config)), *GROUPS}
    for override in values:
        if override.key_or_group.partition(".")[0] not in absent:
            problems += _apply(config, override, known)
    resolved = _resolved(config, problems, absent)
    return Composed(resolved, problems, absent, dict(source.origins), source.request.allow)


def _sorted(
    overrides: Sequence[Override], problems: list[str]
) -> tuple[list[Override], list[Override], list[Override]]:
    choices, hydras, values = [], [], []
    for override in overrides:
        key = override.key_or_group
        if re.match(r"hydra([./]|$)", key):
            if key == "hydra.run.dir":
                problems.append(f"{override.input_line}: not supported; set run_dir=FOLDER")
            hydras.append(override)
        elif key in GROUPS and not isinstance(override.value(), dict):
            choices.append(override)
        else:
            values.append(override)
    return choices, hydras, values


def _pick(choices: Sequence[Override], problems: list[str]) -> tuple[list[str], set[str]]:
    """Return the options to pass to Hydra, and the groups that have none.

    A wrong name is reported and the nearest valid one taken, so that the rest can be checked.
    """
    picked: dict[str, str] = {}
    for override in choices:
        group, name = override.key_or_group, override.value()
        names = options(group)
        if override.is_delete() or override.is_add() or override.is_force_add() or override.package:
            problems.append(f"{override.input_line}: changes to the defaults list are not supported; set {group}=NAME")
        elif isinstance(name, str) and locate(group, name):
            picked[group] = name
        else:
            close = nearest(str(name), names)
            hint = f"; did you mean {close}?" if close else ""
            problems.append(f"{override.input_line}: no such option{hint} (there are: {', '.join(names)})")
            if close:
                picked[group] = close
    if source.request.base is not None:
        return [f"{group}={name}" for group, name in picked.items()], set()
    named = {override.key_or_group for override in choices}
    recipe = picked.get("recipe")
    absent = {g for g in GROUPS if g not in picked and not (g != "recipe" and chosen(recipe, g))}
    for group in sorted(absent - named, key=GROUPS.index):
        if recipe or (group == "recipe" and not source.request.earlier):
            missing = "not given" if group == "recipe" else f"not chosen by recipe {recipe}"
            problems.append(f"{group}: {missing}; set {group}=NAME (there are: {', '.join(options(group))})")
    picked |= dict.fromkeys(absent, NOTHING)
    return [f"{group}={name}" for group, name in picked.items()], absent


def _load(picked: Sequence[str], hydras: Sequence[Override], problems: list[str], loaded: Loaded | None) -> DictConfig:
    """Return the config of the picked options, with Hydra's own settings."""
    source.request.choices = dict(item.split("=", 1) for item in picked if not item.endswith(f"={NOTHING}"))
    key = repr((picked, source.request))
    if loaded is not None and not hydras and key in loaded:
        kept, origins = loaded[key]
        config = copy.deepcopy(kept)
        source.origins.update(origins)
    else:
        known = len(problems)
        config = _load_anew(picked, hydras, problems)
        if loaded is not None and not hydras and len(problems) == known:
            loaded[key] = copy.deepcopy(config), dict(source.origins)
    HydraConfig.instance().set_config(config)  # for interpolations such as ${hydra:runtime.cwd}
    return config


def _load_anew(picked: Sequence[str], hydras: Sequence[Override], problems: list[str]) -> DictConfig:
    own = [str(override.input_line) for override in hydras]
    for extra in (own, []):
        loader = ConfigLoaderImpl(create_config_search_path(None))
        try:
            config = loader.load_configuration("config", [*picked, *extra], RunMode.RUN, from_shell=False)
        except (HydraException, ConfigError, OmegaConfBaseException, ValueError) as error:
            lines = error.problems if isinstance(error, ConfigError) else [one_line(error)]
            problems += [line for line in lines if line not in problems]
            continue
        problems += [
            f"hydra.{key}: {value} is not supported, because it can run code; remove it"
            for key, value in _code(_container(config.hydra))
        ]
        return config
    raise ConfigError(problems, HEADLINE)


def _code(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings that make Hydra or its logging run code other than its own and that of installed plugins."""
    if isinstance(node, dict):
        for key, value in node.items():
            where = f"{path}.{key}" if path else str(key)
            fine: tuple[str, ...] | None = {
                "_target_": ("hydra._internal.core_plugins.", "hydra_plugins."),
                "class": ("logging.StreamHandler", "logging.FileHandler"),
                "searchpath": (),
                "()": (),
            }.get(str(key))
            if fine is not None and value and not str(value).startswith(fine):
                yield where, value
            yield from _code(value, where)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _code(value, f"{path}.{index}")
    elif isinstance(node, str) and node.startswith("ext://") and node not in ("ext://sys.stdout", "ext://sys.stderr"):
        yield path, node


def _apply(config: DictConfig, override: Override, known: set[str]) -> list[str]:
    key = re.sub(r"\[(\w+)\]", r".\1", override.key_or_group)
    value = override.value()
    keys = [key, *(leaves(value, f"{key}.") if isinstance(value, dict) else ())]
    strange = [name for name in keys if name not in known and not (override.is_add() or override.is_force_add())]
    if strange:
        return [unknown(name, known) for name in strange]
    source.origins.update(dict.fromkeys(keys, "the command line"))
    try:
        ConfigLoaderImpl._apply_overrides_to_config([override], config)
    except (HydraException, OmegaConfBaseException, TypeError, ValueError, KeyError, IndexError) as error:
        return [f"{override.input_line}: {one_line(error)}"]  # whatever a wrong index of a list raises
    return []


def _container(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False, throw_on_missing=False)


def _unresolved(key: str, message: str) -> str:
    """Return the message about an interpolation, by the options chosen where it names the field of another group."""
    match = re.fullmatch(r"Interpolation key '((\w+)\..+)' not found", message)
    choices = source.request.choices
    option = choices.get(match[2], chosen(choices.get("recipe"), match[2])) if match else None
    if match is None or option is None:
        return message
    lacking = f"its value is that of {match[1]}, which {match[2]}={option} does not have"
    return f"{lacking}; choose another {match[2]}, or set {key}"


def _resolved(config: DictConfig, problems: list[str], absent: set[str]) -> dict[str, Any]:
    """Return plain data with interpolations resolved; those that fail are left without a value."""
    quiet = bool(absent)  # what refers to a group that is not there cannot be told from a mistake
    while True:
        try:
            return OmegaConf.to_container(config, resolve=True, throw_on_missing=False)  # type: ignore[return-value]
        except OmegaConfBaseException as error:
            key = error.full_key or ""
            absent.add(key)
            if not quiet:
                problems.append(f"{key}: {_unresolved(key, str(error).splitlines()[0])}")
            OmegaConf.update(config, key, None, force_add=True)
