"""Lookup of specs by name, and of twins by spec: the only module that imports by name."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.machinery
import importlib.util
import keyword
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from toolkit.config.spec import is_spec
from toolkit.errors import ConfigError

# backend -> packages that it imports
FRAMEWORKS: dict[str, tuple[str, ...]] = {
    "torch": ("torch", "lightning"),
    "tf": ("tensorflow", "keras", "tensorflow_text") if sys.platform != "win32" else ("tensorflow", "keras"),
}
FOREIGN: dict[str, frozenset[str]] = {
    "tf": frozenset(
        (
            *("torch", "torchvision", "torchaudio", "torchdata", "torchmetrics", "triton"),
            *("lightning", "lightning_fabric", "pytorch_lightning"),
        )
    ),
    "torch": frozenset(("tensorflow", "tensorflow_text", "keras", "keras_hub", "tf_keras")),
}


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
        own = "" if top in sys.stdlib_module_names else f"; if it is one of a package of your own, give allow=[{top}]"
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
    if lacking := missing(backend):
        raise ConfigError(lacking)
    name = f"{kind.__module__.rpartition('.')[0]}.{backend}"
    wanted = f"backend={backend} needs the class {kind.__name__} in {name.replace('.', '/')}.py"
    if not _exists(name):
        raise ConfigError(f"{wanted}, a file that does not exist")
    twin = vars(importlib.import_module(name)).get(kind.__name__)
    if twin is None:
        raise ConfigError(f"{wanted}, which the file does not have")
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


def missing(backend: str) -> str | None:
    """Return a message with the packages that ``backend`` lacks, or None. Imports none of them."""
    absent = [name for name in FRAMEWORKS[backend] if name not in sys.modules and not importlib.util.find_spec(name)]
    if not absent:
        return None
    if _Finder.hidden.intersection(absent):
        return f"backend={backend}: this process uses the other backend, and one process uses one; use another process"
    return f'backend={backend} needs {", ".join(absent)}, not installed here: pip install "toolkit[{backend}]"'


class _Finder(importlib.machinery.PathFinder):
    """Finder of everything except the hidden packages, which look as if they were not installed.

    A finder that raises, or None in ``sys.modules``, breaks libraries that ask before they import.
    """

    hidden: frozenset[str] = frozenset()

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        if path is None and fullname in cls.hidden:
            return None
        return super().find_spec(fullname, path, target)


def hide(names: Iterable[str]) -> None:
    """Make top-level packages unimportable in this process, as if they were not installed."""
    _Finder.hidden = frozenset(names)
    sys.meta_path[:] = [_Finder if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]


def isolate(backend: str) -> None:
    """Prepare this process for ``backend``, before anything else that might load a framework is imported."""
    hide(FOREIGN[backend])
    if backend == "tf":
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep the large buffers that a training step frees, since the next step asks for them again.

    It returns them to the system otherwise, and each page costs a fault when it comes back: about 10 % of a step of
    recipe=translation on a CPU, with either framework. Other C libraries have no ``mallopt`` and stay as they are.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)
