"""Composing a config with Hydra: where its files are, what is filled in, and everything that is wrong with it at once.

Hydra reads ``conf/`` and ``recipes/`` through :class:`Source`, from a checkout as from a wheel. Three rules go beyond
Hydra's own:

- A file that names a spec in ``_target_`` is completed with that spec's defaults. So defaults are written in the spec
  alone, ``--cfg job`` shows every field, and every field can be overridden without ``+``.
- What a recipe says about a component holds for the component that it chose. Choose another option of the same
  component, and the option's own fields win over the recipe's; choose another component, and the recipe's fields for it
  are left out.
- Files may not touch Hydra's own settings: those can name code.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from toolkit import build
from toolkit.errors import ConfigError
from toolkit.spec import is_spec

HERE = Path(__file__).resolve().parent
CONF = HERE / "_conf" if (HERE / "_conf").is_dir() else HERE.parent / "conf"
RECIPES = HERE / "_recipes" if (HERE / "_recipes").is_dir() else HERE.parent / "recipes"
PACKAGES = {  # group -> where the toolkit's own specs of that kind live
    "dataset": "toolkit.datasets",
    "features": "toolkit.features",
    "tokenizer": "toolkit.tokenizers",
    "model": "toolkit.models",
    "task": "toolkit.tasks",
    "optimizer": "toolkit.optimizers",
    "schedule": "toolkit.schedules",
    "trainer": "toolkit.trainers",
}
GROUPS = ("recipe", "backend", *PACKAGES)
OWN_TO_A_RUN = ("run_dir", "resume", "evaluate", "allow")  # not taken over from an earlier run's config
NOTHING = "_nothing_"  # an empty option of every group, for going on where a choice is missing
HEADLINE = "the config cannot be run:"


@dataclass
class Request:
    """What the command line asks for, as far as reading the files depends on it.

    Args:
        allow: packages of the user's own whose specs may be named.
        choices: option chosen on the command line, by group.
        base: the config of an earlier run to begin with instead of a recipe.
        base_file: where that config was read.
        earlier: whether an earlier run was named, be it there or not.
        run_dir: the folder of the run that is resumed, where it goes on unless the command line says otherwise.
        folders: folders with more groups and recipes.
    """

    allow: tuple[str, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)
    base: Mapping[str, Any] | None = None
    base_file: str = ""
    earlier: bool = False
    run_dir: str | None = None
    folders: tuple[Path, ...] = ()


@dataclass
class Composed:
    """A config, and what is wrong with it so far.

    Args:
        config: plain nested dicts, interpolations resolved; ``???`` where a value is missing.
        problems: one line each.
        absent: groups without a valid choice and keys without a value; a problem tells why.
        origins: dotted key -> the file or override that set it last.
        allow: see :class:`Request`.
    """

    config: dict[str, Any]
    problems: list[str]
    absent: set[str]
    origins: dict[str, str]
    allow: tuple[str, ...]


_request = Request()  # Hydra makes the sources itself, so what they depend on stands here
_origins: dict[str, str] = {}


# --- files -----------------------------------------------------------------------------------------------------------


def folders_of(group: str) -> list[Path]:
    """Where the options of a group are looked for, first the toolkit's own."""
    own = RECIPES if group == "recipe" else CONF / group
    return [own, *(folder / group for folder in _request.folders)]


def options(group: str) -> list[str]:
    """The names that ``group=`` takes."""
    return sorted({file.stem for folder in folders_of(group) for file in folder.glob("*.yaml")})


def locate(group: str, name: str) -> Path | None:
    """The file of an option."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or ".." in name:
        return None
    files = (folder / f"{name}.yaml" for folder in folders_of(group))
    return next((file for file in files if file.is_file()), None)


@cache
def read(file: Path) -> tuple[dict[str, Any], str | None]:
    """A YAML file as plain data, and the package that its header names.

    Raises:
        ConfigError: it is not a YAML mapping, or wants to be put where it does not belong.
    """
    try:
        text = file.read_text("utf-8")
        # OmegaConf's loader knows what YAML 1.1 does not: 1e-3 is a number
        content = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{label(file)}: not a YAML file that can be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{label(file)}: expected keys and values")
    if "hydra" in content and file != CONF / "config.yaml":
        raise ConfigError(f"{label(file)}: hydra: its settings can be given on the command line only")
    package = ConfigSource._get_header_dict(text[:512])["package"]
    if package not in (None, "_global_", "_group_"):
        raise ConfigError(f"{label(file)}: '@package {package}' found, expected _global_ or none")
    return typing.cast(dict[str, Any], content), package


def label(file: Path) -> str:
    """A file's name as the user knows it."""
    for root, name in ((RECIPES, "recipes"), (CONF, "conf")):
        if file.is_relative_to(root):
            return f"{name}/{file.relative_to(root)}"
    return str(file)


def one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split())


# --- what a file means in this run -----------------------------------------------------------------------------------


def defaults_of(kind: type[Any]) -> dict[str, Any]:
    """The fields of a spec class with their defaults, as YAML would hold them; ``???`` where there is none."""
    return {f.name: "???" if f.default is dataclasses.MISSING else _plain(f.default) for f in dataclasses.fields(kind)}


def _plain(value: Any) -> Any:
    if is_spec(type(value)):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``, mapping by mapping."""
    out = dict(below)
    for key, value in above.items():
        under = out.get(key)
        out[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return out


def without(section: Mapping[str, Any], hidden: Mapping[str, Any]) -> dict[str, Any]:
    """``section`` less the leaves that ``hidden`` also has."""
    out = {}
    for key, value in section.items():
        under = hidden.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            out[key] = without(value, under)
        elif key not in hidden:
            out[key] = value
    return out


def completed(group: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """A component's node with the fields that it leaves out. A bad ``_target_`` is left for the check to report."""
    try:
        kind = build.find(str(node.get("_target_")), _request.allow, PACKAGES[group])
    except ConfigError:
        return dict(node)
    return merged({"_target_": node["_target_"]} | defaults_of(kind), node)


def chosen(recipe: str | None, group: str) -> str | None:
    """The option of a group that a recipe, the recipes that it extends or the primary config chooses."""
    file = locate("recipe", recipe) if recipe else CONF / "config.yaml"
    if file is None:
        return None
    extended: list[str | None] = [] if recipe is None else [None]
    for item in read(file)[0].get("defaults", []):
        if isinstance(item, str) and item != "_self_" and recipe:
            extended.insert(0, item.rpartition("/")[2])
        elif isinstance(item, dict):
            for key, value in item.items():
                if key.split(" ")[-1].lstrip("/") == group:
                    return None if value == "???" else value
    return next((found for name in extended if (found := chosen(name, group))), None)


def own_fields(group: str, name: str) -> tuple[str | None, dict[str, Any]]:
    """An option's ``_target_``, and the fields that its file sets over the option of the same component it extends."""
    file = locate(group, name)
    if file is None:
        return None, {}
    content = dict(read(file)[0])
    above = content.pop("defaults", [])
    if "_target_" in content:
        return content.pop("_target_"), content
    for parent in above:
        if isinstance(parent, str) and parent != "_self_":
            target, fields = own_fields(group, parent.rpartition("/")[2])
            return target, merged(fields, content)
    return None, content


def held(content: Mapping[str, Any], before: Mapping[str, str | None], now: Mapping[str, str | None]) -> dict[str, Any]:
    """What of a recipe or of an earlier run's config still holds under the options that this run chooses.

    Args:
        content: sections by group, and other keys.
        before: the option that the content was written for, by group, unless it says so itself in ``_target_``.
        now: the option that this run chooses, by group; a group that is not there keeps its section.
    """
    out = dict(content)
    for group, option in now.items():
        section = content.get(group)
        if option is None or option == before.get(group) or not isinstance(section, Mapping):
            continue
        target, fields = own_fields(group, option)
        if target == (section.get("_target_") or own_fields(group, before.get(group) or "")[0]):
            out[group] = without(section, fields)
        else:
            del out[group]
    return out


def primary() -> dict[str, Any]:
    """``conf/config.yaml``, with the config of an earlier run laid over it when the run goes on from one."""
    content = dict(read(CONF / "config.yaml")[0])
    if _request.run_dir is not None:
        content["run_dir"] = _request.run_dir
    if _request.base is None:
        return content
    base = {key: value for key, value in _request.base.items() if key not in (*OWN_TO_A_RUN, "hydra", "defaults")}
    if "backend" in _request.choices:
        base.pop("backend", None)
    base = held(base, {}, {group: name for group, name in _request.choices.items() if group in PACKAGES})
    for group in PACKAGES.keys() & base.keys() - _request.choices.keys():
        base[group] = completed(group, base[group]) if isinstance(base[group], Mapping) else base[group]
    return merged(content, base) | {"defaults": [*({group: None} for group in ("backend", *PACKAGES)), "_self_"]}


class Source(ConfigSource):
    """Serves a folder of groups to Hydra; the toolkit's own is ``conf/`` together with ``recipes/``."""

    @staticmethod
    def scheme() -> str:
        return "toolkit"

    def _file(self, config_path: str) -> Path | None:
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        if not group:
            return CONF / "config.yaml" if name == "config" and not self.path else None
        kind, _, inner = group.partition("/")
        found = locate(kind, f"{inner}/{name}" if inner else name) if kind in GROUPS else None
        return found if found and any(found.is_relative_to(root) for root in self._roots()) else None

    def _roots(self) -> list[Path]:
        return [Path(self.path)] if self.path else [CONF, RECIPES]

    def load_config(self, config_path: str) -> ConfigResult:
        if config_path.endswith(f"/{NOTHING}"):
            return self._result({}, "_global_", "nothing")
        file = self._file(config_path)
        if file is None:
            raise ConfigLoadError(f"Config not found: {config_path}")
        content, package = read(file)
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        _record(content, label(file), f"{group}." if group in PACKAGES and package != "_global_" else "")
        if not group:
            content = primary()
            _record(_request.base or {}, _request.base_file)
        elif group == "recipe":
            package = "_global_"
            top = _request.choices.get("recipe")
            now = {g: _request.choices.get(g) or chosen(top, g) for g in PACKAGES}
            content = {"recipe": name} | held(content, {g: chosen(name, g) for g in PACKAGES}, now)
        elif group in PACKAGES and "_target_" in content:
            content = completed(group, content)
        return self._result(content, package or group.replace("/", "."), str(file))

    def _result(self, content: dict[str, Any], package: str, path: str) -> ConfigResult:
        header: dict[str, str | None] = {"package": package}
        return ConfigResult(provider=self.provider, path=path, config=OmegaConf.create(content), header=header)

    def is_config(self, config_path: str) -> bool:
        return self._file(config_path) is not None or config_path.endswith(f"/{NOTHING}")

    def is_group(self, config_path: str) -> bool:
        return config_path == "" or config_path in GROUPS

    def available(self) -> bool:
        return all(root.is_dir() for root in self._roots())

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path == "":
            return [] if results_filter == ObjectType.CONFIG else list(GROUPS)
        return [] if results_filter == ObjectType.GROUP or config_path not in GROUPS else options(config_path)


class SearchPath(SearchPathPlugin):
    """Puts the toolkit's folders on Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("toolkit", "toolkit://")
        for folder in _request.folders:
            search_path.append("folder", f"toolkit://{folder}")


def _record(content: Mapping[str, Any], origin: str, prefix: str = "") -> None:
    for key in leaves(content, prefix):
        _origins[key] = origin


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of a nested mapping's keys, the inner ones too."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            yield from (f"{prefix}{key}.{i}" for i in range(len(value)))


# --- composing -------------------------------------------------------------------------------------------------------


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like ``name``, if any is. Of dotted names, one beside it comes before one elsewhere."""
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
    """The line about a key that does not exist."""
    names = list(names)
    place = f" (in {origin})" if origin else ""
    if close := nearest(key, names):
        return f"{key}: unknown key{place}; did you mean {close}?"
    parent = key.rpartition(".")[0]
    beside = sorted({name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == parent})
    return f"{key}: unknown key{place}" + (f" (there are: {', '.join(beside)})" if beside else "")


def variants(arguments: Sequence[str]) -> list[list[str]]:
    """The jobs of a sweep. What only a sweeper can enumerate is left out, and checked by each job for itself."""
    axes = []
    for override in _parse(arguments, []):
        if not override.is_sweep_override():
            axes.append([str(override.input_line)])
        elif override.is_choice_sweep() or override.is_range_sweep():
            key = override.get_key_element()
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    return [list(job) for job in itertools.product(*axes)]


def _parse(arguments: Sequence[str], problems: list[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed = []
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except HydraException as error:
            problems.append(f"{argument}: not an override, expected KEY=VALUE ({one_line(error)})")
            continue
        if override.key_or_group:
            parsed.append(override)
        else:
            problems.append(f"{argument}: not an override, expected KEY=VALUE")
    return parsed


def prepare(arguments: Sequence[str], folders: Sequence[Path] = ()) -> tuple[list[Override], list[str]]:
    """Make Hydra find the toolkit's files, read for these arguments.

    Returns:
        the overrides that can be parsed, and problems.
    """
    global _request
    version.setbase("1.3")
    problems: list[str] = []
    overrides = _parse(arguments, problems)
    single = {o.key_or_group: o.value() for o in overrides if not o.is_sweep_override() and not o.is_delete()}
    _request = Request(folders=tuple(Path(folder).resolve() for folder in folders))
    _origins.clear()
    read.cache_clear()
    problems += [f"--config-dir {folder}: no such folder" for folder in _request.folders if not folder.is_dir()]
    allow = single.get("allow", [])
    _request.allow = tuple(map(str, allow if isinstance(allow, list) else [allow]))
    _request.choices = {
        group: name
        for group, name in single.items()
        if group in GROUPS and isinstance(name, str) and locate(group, name)
    }
    if single.get("resume") == "auto" and "run_dir" not in single:
        problems.append("resume=auto: also give run_dir=FOLDER, the run to go on with or to begin")
    for key in ("evaluate", "resume"):
        if single.get(key) not in (None, "auto"):
            _request.earlier = True
            try:
                base, _request.base_file = earlier(key, Path(str(single[key])))
            except ConfigError as error:
                problems += error.problems
            else:
                _request.base = None if "recipe" in single else base
                _request.run_dir = str(single[key]) if key == "resume" else None
    Plugins.instance().register(Source)
    Plugins.instance().register(SearchPath)
    setup_globals()
    return overrides, problems


def earlier(key: str, folder: Path) -> tuple[dict[str, Any], str]:
    """The config in a run folder, and the name of its file.

    Raises:
        ConfigError: there is none.
    """
    file = folder / "config.yaml"
    if not folder.is_dir():
        raise ConfigError(f"{key}: {folder} is not a folder, expected a run folder")
    if not file.is_file():
        raise ConfigError(f"{key}: {folder} has no config.yaml, expected a run folder")
    return read(file)[0], str(file)


def compose(arguments: Sequence[str], folders: Sequence[Path] = ()) -> Composed:
    """Compose the config of one run as Hydra does, going on past every problem.

    Args:
        arguments: the overrides of the command line.
        folders: more folders of groups and recipes, in the shape of ``conf/``.
    """
    overrides, problems = prepare(arguments, folders)
    for override in list(overrides):
        if override.is_sweep_override():
            problems.append(f"{override.input_line}: several values; add -m for a run of each, or write a list [a,b]")
            overrides.remove(override)
    choices, hydras, values = _sorted(overrides, problems)
    picked, absent = _pick(choices, problems)
    config = _load(picked, hydras, problems)
    with open_dict(config):
        del config["hydra"]
    known = {*leaves(_container(config)), *GROUPS}
    for override in values:
        if override.key_or_group.partition(".")[0] not in absent:
            problems += _apply(config, override, known)
    resolved = _resolved(config, problems, absent)
    return Composed(resolved, problems, absent, dict(_origins), _request.allow)


def _sorted(
    overrides: Sequence[Override], problems: list[str]
) -> tuple[list[Override], list[Override], list[Override]]:
    choices, hydras, values = [], [], []
    for override in overrides:
        key = override.key_or_group
        if re.match(r"hydra([./]|$)", key):
            if key == "hydra.run.dir":
                problems.append(f"{override.input_line}: give run_dir=FOLDER")
            hydras.append(override)
        elif key in GROUPS and not isinstance(override.value(), dict):
            choices.append(override)
        else:
            values.append(override)
    return choices, hydras, values


def _pick(choices: Sequence[Override], problems: list[str]) -> tuple[list[str], set[str]]:
    """The option of every group that has to be named to Hydra, and the groups that are left without.

    A wrong name is reported and the nearest valid one taken, so that the rest can be checked.
    """
    picked: dict[str, str] = {}
    for override in choices:
        group, name = override.key_or_group, override.value()
        names = options(group)
        if override.is_delete() or override.is_add() or override.is_force_add() or override.package:
            problems.append(f"{override.input_line}: found a changed defaults list, expected {group}=NAME")
        elif isinstance(name, str) and locate(group, name):
            picked[group] = name
        else:
            close = nearest(str(name), names)
            hint = f"; did you mean {close}?" if close else ""
            problems.append(f"{override.input_line}: no such option{hint} (there are: {', '.join(names)})")
            if close:
                picked[group] = close
    if _request.base is not None:
        return [f"{group}={name}" for group, name in picked.items()], set()
    named = {override.key_or_group for override in choices}
    recipe = picked.get("recipe")
    absent = {g for g in GROUPS if g not in picked and not (g != "recipe" and chosen(recipe, g))}
    for group in sorted(absent - named, key=GROUPS.index):
        if recipe or (group == "recipe" and not _request.earlier):
            missing = "not given" if group == "recipe" else f"not chosen by recipe {recipe}"
            problems.append(f"{group}: {missing}; give {group}=NAME (there are: {', '.join(options(group))})")
    picked |= dict.fromkeys(absent, NOTHING)
    return [f"{group}={name}" for group, name in picked.items()], absent


def _load(picked: list[str], hydras: Sequence[Override], problems: list[str]) -> DictConfig:
    _request.choices = dict(item.split("=", 1) for item in picked if not item.endswith(f"={NOTHING}"))
    own = [str(override.input_line) for override in hydras]
    for extra in (own, []):
        loader = ConfigLoaderImpl(create_config_search_path(None))
        try:
            config = loader.load_configuration("config", [*picked, *extra], RunMode.RUN, from_shell=False)
        except (HydraException, ConfigError, OmegaConfBaseException, ValueError) as error:
            lines = error.problems if isinstance(error, ConfigError) else [one_line(error)]
            problems += [line for line in lines if line not in problems]
            continue
        problems += [f"hydra.{key}: {value} is refused" for key, value in _code(_container(config.hydra))]
        HydraConfig.instance().set_config(config)  # for interpolations such as ${hydra:runtime.cwd}
        return config
    raise ConfigError(problems, HEADLINE)


def _code(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What would make Hydra or its logging run code other than Hydra's own and its installed plugins'."""
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
    _origins.update(dict.fromkeys(keys, "the command line"))
    try:
        ConfigLoaderImpl._apply_overrides_to_config([override], config)
    except (HydraException, OmegaConfBaseException) as error:
        return [f"{override.input_line}: {one_line(error)}"]
    return []


def _container(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False, throw_on_missing=False)


def _resolved(config: DictConfig, problems: list[str], absent: set[str]) -> dict[str, Any]:
    """Plain data with interpolations resolved; those that cannot be are left without a value."""
    quiet = bool(absent)  # what refers to a group that is not there cannot be told from a mistake
    while True:
        try:
            return OmegaConf.to_container(config, resolve=True, throw_on_missing=False)  # type: ignore[return-value]
        except OmegaConfBaseException as error:
            key = error.full_key or ""
            absent.add(key)
            if not quiet:
                problems.append(f"{key}: {str(error).splitlines()[0]}")
            OmegaConf.update(config, key, None, force_add=True)
