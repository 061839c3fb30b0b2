"""Config source for Hydra: finds the files, and fills in defaults as they are read.

Hydra reads ``conf/`` and ``recipes/`` through :class:`Source`, from a checkout as from a wheel. Three rules go beyond
Hydra's own:

- A file that names a spec in ``_target_`` is completed with that spec's defaults. So defaults are written in the spec
  alone, ``--cfg job`` shows every field, and every field can be overridden without ``+``.
- What a recipe says about a component holds for the component that it chose. Choose another option of the same
  component, and the option's own fields win over the recipe's; choose another component, and the recipe's fields for it
  are left out.
- Files may not change Hydra's own settings, which can name code.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toolkit.config import build
from toolkit.config.paths import CONF, RECIPES
from toolkit.config.spec import as_data
from toolkit.errors import ConfigError

PACKAGES = {  # group -> package of the toolkit's specs
    "dataset": "toolkit.datasets",
    "features": "toolkit.features",
    "tokenizer": "toolkit.tokenizers",
    "model": "toolkit.models",
    "task": "toolkit.tasks",
    "optimizer": "toolkit.optimizers",
    "schedule": "toolkit.schedules",
    "trainer": "toolkit.training",
    "sweep": "toolkit.sweeps",
    "launcher": "toolkit.sweeps",
}
GROUPS = ("recipe", "backend", *PACKAGES)
OF_A_SWEEP = ("sweep", "launcher", "ranges", "seeds", "objectives")  # not in the config of a run
PARTS = tuple(group for group in PACKAGES if group not in OF_A_SWEEP)  # groups of a run
# not inherited from the config of an earlier run
OWN_TO_A_RUN = ("run_dir", "resume", "evaluate", "check", "accept", "allow")
NOTHING = "_nothing_"  # empty option of every group, to continue where a choice is missing


@dataclass
class Request:
    """Part of the command line that the reading of files depends on.

    Args:
        allow: packages outside the toolkit whose specs may be named.
        choices: option chosen on the command line, by group.
        base: config of an earlier run, in place of a recipe.
        base_file: its file.
        earlier: an earlier run was named, whether it exists or not.
        run_dir: folder of the resumed run, unless the command line sets another.
        folders: folders with more groups and recipes.
    """

    allow: tuple[str, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)
    base: Mapping[str, Any] | None = None
    base_file: str = ""
    earlier: bool = False
    run_dir: str | None = None
    folders: tuple[Path, ...] = ()


request = Request()  # global, because Hydra creates the sources itself
origins: dict[str, str] = {}


def folders_of(group: str) -> list[Path]:
    """Return the folders of a group's options, the toolkit's first."""
    own = RECIPES if group == "recipe" else CONF / group
    return [own, *(folder / group for folder in request.folders)]


def options(group: str) -> list[str]:
    """Return the names that ``group=`` takes."""
    return sorted({file.stem for folder in folders_of(group) for file in folder.glob("*.yaml")})


def locate(group: str, name: str) -> Path | None:
    """Return the file of an option."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or ".." in name:
        return None
    files = (folder / f"{name}.yaml" for folder in folders_of(group))
    return next((file for file in files if os.path.isfile(file)), None)  # which, unlike Path's, never raises


@cache
def read(file: Path) -> tuple[dict[str, Any], str | None]:
    """Read a YAML file as plain data, and the package that its header names.

    Raises:
        ConfigError: it is not a YAML mapping, or its package is not allowed.
    """
    try:
        text = file.read_text("utf-8")
        # OmegaConf's loader knows what YAML 1.1 does not: 1e-3 is a number
        content = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{label(file)}: not a YAML file that can be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{label(file)}: found {type(content).__name__}, expected a mapping of keys to values")
    if "hydra" in content and file != CONF / "config.yaml":
        raise ConfigError(f"{label(file)}: hydra: not supported in a file; set it on the command line")
    package = ConfigSource._get_header_dict(text[:512])["package"]
    if package not in (None, "_global_", "_group_"):
        raise ConfigError(f"{label(file)}: found '@package {package}', expected '@package _global_' or none")
    return typing.cast(dict[str, Any], content), package


def label(file: Path) -> str:
    """Return a file's name as the user knows it."""
    for root, name in ((RECIPES, "recipes"), (CONF, "conf")):
        if file.is_relative_to(root):
            return f"{name}/{file.relative_to(root)}"
    return str(file)


def one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split())


# --- what a file means in this run -----------------------------------------------------------------------------------


def defaults_of(kind: type[Any]) -> dict[str, Any]:
    """Return the fields of a spec class with their defaults, as in YAML; ``???`` where there is none."""
    return {f.name: "???" if f.default is dataclasses.MISSING else as_data(f.default) for f in dataclasses.fields(kind)}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``above`` over ``below``, mapping by mapping."""
    out = dict(below)
    for key, value in above.items():
        under = out.get(key)
        out[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return out


def without(section: Mapping[str, Any], hidden: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``section`` without the leaves that ``hidden`` also has."""
    out = {}
    for key, value in section.items():
        under = hidden.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            out[key] = without(value, under)
        elif key not in hidden:
            out[key] = value
    return out


def completed(group: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults to a component's node. The check reports a bad ``_target_``."""
    try:
        kind = build.find(str(node.get("_target_")), request.allow, PACKAGES[group])
    except ConfigError:
        return dict(node)
    return merged({"_target_": node["_target_"]} | defaults_of(kind), node)


def chosen(recipe: str | None, group: str) -> str | None:
    """Return the option of a group that a recipe, the recipes that it extends or the primary config choose."""
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
    """Return an option's ``_target_``, and the fields that it sets over the option that it extends."""
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
    """Return the part of a recipe or of an earlier run's config that applies to the options of this run.

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
    """Read ``conf/config.yaml`` and merge it with the config of the earlier run that the run resumes."""
    content = dict(read(CONF / "config.yaml")[0])
    if request.run_dir is not None:
        content["run_dir"] = request.run_dir
    if request.base is None:
        return content
    base = {key: value for key, value in request.base.items() if key not in (*OWN_TO_A_RUN, "hydra", "defaults")}
    if "backend" in request.choices:
        base.pop("backend", None)
    base = held(base, {}, {group: name for group, name in request.choices.items() if group in PACKAGES})
    for group in PACKAGES.keys() & base.keys() - request.choices.keys():
        base[group] = completed(group, base[group]) if isinstance(base[group], Mapping) else base[group]
    defaults = [{group: chosen(None, group) if group in OF_A_SWEEP else None} for group in ("backend", *PACKAGES)]
    return merged(content, base) | {"defaults": [*defaults, "_self_"]}


class Source(ConfigSource):
    """Hydra source of a folder of groups; the toolkit's own is ``conf/`` together with ``recipes/``."""

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
            _record(request.base or {}, request.base_file)
        elif group == "recipe":
            package = "_global_"
            top = request.choices.get("recipe")
            now = {g: request.choices.get(g) or chosen(top, g) for g in PACKAGES}
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
    """Plugin that adds the toolkit's folders to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("toolkit", "toolkit://")
        for folder in request.folders:
            search_path.append("folder", f"toolkit://{folder}")


def _record(content: Mapping[str, Any], origin: str, prefix: str = "") -> None:
    for key in leaves(content, prefix):
        origins[key] = origin


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of a nested mapping's keys, inner ones included."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            yield from (f"{prefix}{key}.{i}" for i in range(len(value)))
