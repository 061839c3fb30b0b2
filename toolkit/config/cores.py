"""Cores that this process may use: those it is bound to, within the limit of its container."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def count(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return the number of cores, at least 1; a limit of 1.5 cores counts as 2.

    Args:
        root: where the control groups are mounted.
        membership: file that names this process's groups.
    """
    return max(1, min([bound(), *(math.ceil(limit) for limit in limits(root, membership))]))


def bound() -> int:
    """Return the number of cores that this process is bound to; all if it is to none."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def limited(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> str:
    """Return a line about the cores that this process may not use; empty if it may use all. See :func:`count`."""
    own, of_machine = count(root, membership), os.cpu_count() or 1
    if own >= of_machine:
        return ""
    return f"{own} of the machine's {of_machine} cores may be used; OMP_NUM_THREADS=N sets another number of threads"


def limits(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> Iterator[float]:
    """Yield each limit of cores that a control group of this process, or one above it, has.

    Both versions of control groups are read. A container may see its own group as the root.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            hierarchies = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            hierarchies = list(dict.fromkeys([root / controllers, root / "cpu"]))
        else:
            continue
        for hierarchy in hierarchies:
            yield from _limits_along(hierarchy, path)


def _limits_along(hierarchy: Path, path: str) -> Iterator[float]:
    folder = hierarchy / path.strip("/")
    for group in (folder, *folder.parents):
        if group.is_relative_to(hierarchy) and (limit := _limit(group)):
            yield limit


def _limit(group: Path) -> float | None:
    """Return the limit of one control group; None if it has none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
