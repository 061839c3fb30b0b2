"""Cores that a process may use, and what is set before a framework is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.config import cores, process


def groups(folder: Path, membership: str, files: dict[str, str]) -> dict[str, Path]:
    """Write the files of control groups; return the arguments of :func:`cores.count`."""
    (folder / "membership").write_text(membership)
    for name, content in files.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(content)
    return {"root": folder / "groups", "membership": folder / "membership"}


V1 = {"cpu.cfs_quota_us": "250000\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    "membership, files, expected",
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, [1.5]),
        ("0::/\n", {"cpu.max": "max 100000\n"}, []),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n", "c/cpu.max": "1 1"}, [3.0]),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "50000 100000\n"}, [0.5, 4.0]),
        ("4:memory:/x\n2:cpu,cpuacct:/x\n", {f"cpu,cpuacct/x/{name}": text for name, text in V1.items()}, [2.5]),
        ("2:cpu:/outside\n0::/\n", {f"cpu/{name}": text for name, text in V1.items()}, [2.5]),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
        ("0::/\n", {"cpu.max": "no number\n"}, []),
        ("0::/\n", {}, []),
    ],
)
def test_limits(membership: str, files: dict[str, str], expected: list[float], tmp_path: Path) -> None:
    arguments = groups(tmp_path, membership, files)
    assert list(cores.limits(**arguments)) == expected


def test_the_smallest_limit_counts_and_one_core_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    assert cores.count(tmp_path, tmp_path / "none") == 8
    files = {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "150000 100000\n"}
    assert cores.count(**groups(tmp_path, "0::/a/b\n", files)) == 2
    assert cores.count(**groups(tmp_path, "0::/c\n", {"c/cpu.max": "1000 100000\n"})) == 1


def test_a_run_says_that_it_may_not_use_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    assert cores.limited(tmp_path, tmp_path / "none") == ""
    line = cores.limited(**groups(tmp_path, "0::/\n", {"cpu.max": "150000 100000\n"}))
    assert line.startswith("2 of the machine's 8 cores may be used; ")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment that a command sees, without the variables of this test run."""
    chosen = {name: value for name, value in os.environ.items() if name not in process.THREADS}
    monkeypatch.setattr(os, "environ", chosen)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    return chosen


@pytest.mark.parametrize(
    "backend, limit, user, policy",
    [
        ("tf", 8, {}, "PASSIVE"),
        ("tf", 8, {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ("tf", 8, {"GOMP_SPINCOUNT": "9"}, None),
        ("torch", 8, {}, None),  # see toolkit.training.spinning
        ("torch", 8, {"OMP_PROC_BIND": "true"}, "PASSIVE"),
        ("torch", 7.5, {}, "PASSIVE"),
        ("torch", 3, {}, "PASSIVE"),
    ],
)
def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    backend: str,
    limit: float,
    user: dict[str, str],
    policy: str | None,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores, "limits", lambda *_: iter([limit]))
    monkeypatch.setattr(cores, "bound", lambda: 8)
    for name in (*process.POLICIES, *process.PLACES):
        environment.pop(name, None)
    environment |= user
    process._share_cores(backend)
    assert environment.get("OMP_WAIT_POLICY") == policy
    assert bool(environment.keys() & set(process.THREADS)) == (limit < 7)


def test_a_container_has_no_more_threads_than_cores(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "count", lambda: 3)
    environment["TF_NUM_INTEROP_THREADS"] = "1"
    process._share_cores("torch")
    assert [environment[name] for name in process.THREADS] == ["3", "3", "1"]
