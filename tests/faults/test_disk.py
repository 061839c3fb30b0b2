"""A kill, a loss of power and a full disk at every operation that a run does on its files, and a disk that is full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .runs import ROOT

MEMORY = Path("/dev/shm")  # syncs cost nothing there, and what a kill leaves is the same


@pytest.fixture
def quick(tmp_path):
    """A folder on a file system without a disk, where there is one."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="toolkit-"))
    yield folder
    shutil.rmtree(folder)


def sweep(work, fault, guard="none", every=1):
    command = [sys.executable, "-m", "tests.faults.disk", str(work / "work"), fault, guard, str(every)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "fault, every",
    [
        ("kill", 3),
        pytest.param("kill", 1, marks=pytest.mark.long),
        ("power", 8),
        ("full", 12),
        pytest.param("once", 8, marks=pytest.mark.long),
    ],
)
def test_a_fault_at_any_operation_costs_nothing(quick, fault, every):
    found = sweep(quick, fault, every=every)
    assert found["wrong"] == {}
    assert found["operations"] > 150  # it has counted them


@pytest.mark.parametrize(
    "guard, fault, every",
    [
        ("renaming", "kill", 3),
        pytest.param("rewinding", "kill", 40, marks=pytest.mark.long),
        pytest.param("the last validation", "kill", 40, marks=pytest.mark.long),
        pytest.param("sync", "power", 5, marks=pytest.mark.long),
        pytest.param("sync of the logs", "power", 5, marks=pytest.mark.long),
        pytest.param("errors and reading back", "once", 5, marks=pytest.mark.long),
    ],
)
def test_without_its_guard_a_fault_is_seen_to_cost_something(quick, guard, fault, every):
    assert sweep(quick, fault, guard, every)["wrong"]


# --- a file system that really has no room ---


def test_a_run_on_a_file_system_without_room_stops_in_one_line_and_goes_on_when_there_is_some(tmp_path):
    """As many pages are free as do not suffice, three more each time."""
    place = tmp_path / "mount"
    place.mkdir()
    own = ["unshare", "--map-root-user", "--mount"] if shutil.which("unshare") else []
    done = subprocess.run(
        [*own, sys.executable, "-m", "tests.workers.small_disk", str(place)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    if not own or done.returncode == 77 or done.stderr.startswith("unshare: "):
        pytest.skip("no file system may be mounted here; the injected failures above are the same")
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith("code 0")
    told = [line for line in done.stderr.splitlines() if "No space left" in line]
    assert len(told) == done.stderr.count("code 1") > 3
    assert all(" bytes are free" in line for line in told) and any("needs " in line for line in told)
    assert "Traceback" not in done.stderr
