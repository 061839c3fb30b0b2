"""The watch over the machine: what it reads, and that the spare threads outnumber the cores and end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.backend import ROOT, SETTINGS
from toolkit.config.process import PLACES, POLICIES
from toolkit.training.spinning import Watch

PROGRAM = """
import os, sys, time, torch
from pathlib import Path
from toolkit.config.process import POLICIES
from toolkit.training import spinning

def threads(count):
    end = time.monotonic() + 30
    while len(os.listdir("/proc/self/task")) != count and time.monotonic() < end:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/task")) == count, (os.listdir("/proc/self/task"), count)

cores, team = set(range(int(sys.argv[1]))), int(sys.argv[2])
os.sched_getaffinity = lambda _: cores
torch.set_num_threads(team)
operation = lambda: torch.ones(team << 16).add_(1)
operation()
before = len(os.listdir("/proc/self/task"))
watch = spinning.Watch(cores, team, operation)
free = len(cores) - team
for busy, wanted in ((free + 0.4, False), (free + 0.6, True), (99, True), (0.0, False), (99, True)):
    watch.adjust(busy)
    assert bool(watch.spare) == wanted
    # the rule of libgomp: its own threads, with the main thread, are more than the cores
    assert not wanted or team + len(watch.spare) * (team - 1) > len(cores)
    threads(before + len(watch.spare) * team)
watch.close()
watch.adjust(99)
threads(before)
spinning.watch(team, lambda: None)
threads(before + (not any(name in os.environ for name in POLICIES)))
"""
STAT = """cpu  900 900 900 900 900 900 900 0 0 0
cpu0 1 2 3 400 500 4 5 600 0 0
cpu1 1 2 3 400 500 4 5 600 0 0
cpu3 1 2 3 400 500 4 5 600 0 0
intr 5
"""


def test_the_cores_of_the_process_are_read(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(STAT)
    watch = Watch({0, 2, 3, 5}, 2, lambda: None)
    assert watch.computed(tmp_path / "stat") == 30 / os.sysconf("SC_CLK_TCK")
    assert 0 < watch.computed() < watch._read()[2] + 1


def test_without_the_file_there_are_no_spare_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch({0, 1}, 2, lambda: None)
    monkeypatch.setattr(watch, "computed", lambda: int("x"))
    watch.run()
    watch.adjust(99)
    assert watch.spare == []


@pytest.mark.parametrize(
    "cores, threads, policy",
    [
        (2, 2, {}),
        pytest.param(4, 2, {}, marks=pytest.mark.long),
        (9, 5, {"GOMP_SPINCOUNT": "300000"}),
        pytest.param(16, 4, {}, marks=pytest.mark.long),
    ],
)
def test_spare_threads_stand_by_while_others_need_the_cores(cores: int, threads: int, policy: dict[str, str]) -> None:
    unset = (*POLICIES, *PLACES)
    environment = {name: value for name, value in (os.environ | SETTINGS).items() if name not in unset} | policy
    words = [sys.executable, "-c", PROGRAM, str(cores), str(threads)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
