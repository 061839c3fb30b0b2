"""Lookup of specs by name, and of twins by spec: the only module that imports by name."""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import sys
from collections.abc import Sequence
from typing import Any

from toolkit.config import process
from toolkit.config.spec import is_spec
from toolkit.errors import ConfigError


def find(target: str, allow: Sequence[str] = (), package: str = "toolkit") -> type[Any]:
    """Return the spec class that a config names in ``_target_``.

    The name is checked before anything is imported, and then taken literally: ``module.Class``, where the module can be
    imported under exactly that name and itself defines the class.

    Args:
        target: ``package.module.Class``.
        allow: top-level packages beside the toolkit's own whose specs may be named.
        package: where in the toolkit a spec of this kind lives, as ``toolkit.models``.

    Raises:
        ConfigError: it is not the name of such a class.
    """
    if not isinstance(target, str):
        raise ConfigError(f"found {target!r}, expected the name of a spec as {package}.module.Class")
    *parents, name = target.split(".")
    module_name, top = ".".join(parents), parents[0] if parents else ""
    if not parents or not all(part.isidentifier() and not keyword.iskeyword(part) for part in [*parents, name]):
        raise ConfigError(f"found {target!r}, expected the name of a spec as {package}.module.Class")
    if top not in ("toolkit", *allow):
        own = "" if top in sys.stdlib_module_names else f"; if it is in a package of your own, set allow=[{top}]"
        raise ConfigError(f"{target} is not a spec of the toolkit{own}")
    if top == "toolkit" and not f"{module_name}.".startswith(f"{package}."):
        raise ConfigError(f"{target} does not belong here, expected a spec from {package}")
    if parents[-1] in ("torch", "tf"):
        raise ConfigError(f"{target} is a twin; name its spec, {'.'.join([*parents[:-1], 'spec', name])}")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module of the user's raises while it is imported
        raise ConfigError(f"{target}: cannot import {module_name} ({type(error).__name__}: {error})") from error
    found = vars(module).get(name)
    if (
        not isinstance(found, type)
        or not is_spec(found)
        or (found.__module__, found.__qualname__) != (module_name, name)
    ):
        raise ConfigError(f"{target} is not a spec defined in {module_name}")
    return found


def build(spec: Any, backend: str, *args: Any) -> Any:
    """Build a spec's twin: the class of the same name from ``torch.py`` or ``tf.py`` beside the spec's module.

    Args:
        spec: an instance of a spec class.
        backend: ``torch`` or ``tf``.
        *args: arguments of the twin after the spec.

    Raises:
        ConfigError: the framework is not installed, or the spec has no such twin.
    """
    kind = type(spec)
    if not is_spec(kind):
        raise TypeError(f"{kind.__module__}.{kind.__qualname__} is not a spec")
    if lacking := process.missing(backend):
        raise ConfigError(lacking)
    name = f"{kind.__module__.rpartition('.')[0]}.{backend}"
    wanted = f"backend={backend} needs the class {kind.__name__} in {name.replace('.', '/')}.py"
    if not _exists(name):
        raise ConfigError(f"{wanted}; the file does not exist")
    twin = vars(importlib.import_module(name)).get(kind.__name__)
    if twin is None:
        raise ConfigError(f"{wanted}; the file has no such class")
    return twin(spec, *args)


def load_module(package: str, name: str) -> Any:
    """Import a module of a package by its name, such as the side of a backend: ``toolkit.training``, ``torch``.

    Args:
        package: dotted name; of the toolkit's own packages, never from a config.
        name: of the module in it.
    """
    return importlib.import_module(f"{package}.{name}")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor does its package
        return False
