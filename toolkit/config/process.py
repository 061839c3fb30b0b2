"""Preparation of a process for one framework: hide the other one, set what the framework and the C library read."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toolkit.config import cores

THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")  # number of threads, by variable
POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how threads of OpenMP wait, by variable
PLACES = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")  # the cores of each of them
STAT = Path("/proc/stat")
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


def missing(backend: str) -> str | None:
    """Return a message with the packages that ``backend`` lacks, or None. Imports none of them."""
    absent = [name for name in FRAMEWORKS[backend] if name not in sys.modules and not importlib.util.find_spec(name)]
    if not absent:
        return None
    if _Finder.hidden.intersection(absent):
        other = next(name for name in FRAMEWORKS if name != backend)
        return f"backend={backend} is not supported in a process that uses {other}; start another process"
    return f"backend={backend} needs {', '.join(absent)}, not installed here: {install(backend)}"


def install(extra: str) -> str:
    """Return how to install the packages of one of the toolkit's extras, for a message."""
    return f'install toolkit with the extra "{extra}", in a checkout by pip install -e ".[{extra}]"'


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


def prepare(backend: str) -> None:
    """Prepare this process for ``backend``, before anything else that might load a framework is imported."""
    hide(FOREIGN[backend])
    if backend == "tf":
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _share_cores(backend)
    _keep_freed_memory()


def may_spin() -> bool:
    """Tell if ``toolkit.training.spinning`` decides whether PyTorch's waiting threads spin, which is faster.

    It needs GNU's OpenMP, which PyTorch's wheels hold, cores that other processes may use, and no setting of the user.
    Spinning would use up the time that a container may compute.
    """
    if any(name in os.environ for name in (*POLICIES, *PLACES)) or not os.access(STAT, os.R_OK):
        return False
    if any(limit < cores.bound() for limit in cores.limits()):
        return False
    torch = importlib.util.find_spec("torch")
    folders = torch.submodule_search_locations or [] if torch else []
    return any(file for folder in folders for file in Path(folder, "lib").glob("libgomp*"))


def _share_cores(backend: str) -> None:
    """Start no more threads than a container has cores, and let waiting threads of OpenMP sleep.

    PyTorch's threads spin while they wait for each other, so that two processes on the same cores stop each other: a
    step took up to 30 times as long. What the user set stays.
    """
    if not any(name in os.environ for name in POLICIES) and not (backend == "torch" and may_spin()):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if (count := cores.count()) < (os.cpu_count() or 1):
        for name in THREADS:
            os.environ.setdefault(name, str(count))


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
