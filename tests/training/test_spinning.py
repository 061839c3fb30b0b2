"""The watch over the machine: what it counts, and that it starts and ends the spare threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.backend import ROOT, SETTINGS
from toolkit.config.process import POLICIES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")

PROGRAM = """
import os, sys, time, torch
from pathlib import Path
from toolkit.training import spinning

def threads(count):
    end = time.monotonic() + 30
    while len(os.listdir("/proc/self/task")) != count and time.monotonic() < end:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/task")) == count, (os.listdir("/proc/self/task"), count)

os.sched_getaffinity = lambda _: {0, 2, 3, 5}
torch.set_num_threads(2)
torch.ones(1 << 20).add_(1)
before = len(os.listdir("/proc/self/task"))
watch = spinning.Watch({0, 2, 3, 5}, 2, lambda: torch.ones(1 << 20).add_(1))
assert watch.used(Path(sys.argv[1])) == 30 / os.sysconf("SC_CLK_TCK")
for others, spare in ((2.4, 0), (2.6, 2), (4.0, 2), (0.0, 0), (9.0, 2)):
    watch.look(others)
    assert len(watch.spare) == spare
    threads(before + 2 * spare)  # a thread and its team, which has one more
watch.close()
watch.look(9.0)
threads(before)
spinning.watch(2, lambda: None)
threads(before + (not any(name in os.environ for name in spinning.POLICIES)))
"""
STAT = """cpu  900 900 900 900 900 900 900 0 0 0
cpu0 1 2 3 400 500 4 5 600 0 0
cpu1 1 2 3 400 500 4 5 600 0 0
cpu3 1 2 3 400 500 4 5 600 0 0
intr 5
"""


@pytest.mark.parametrize("policy", [{}, {"GOMP_SPINCOUNT": "300000"}])
def test_spare_threads_stand_by_while_others_need_the_cores(policy: dict[str, str], tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text(STAT)
    environment = {name: value for name, value in (os.environ | SETTINGS).items() if name not in POLICIES} | policy
    words = [sys.executable, "-c", PROGRAM, str(stat)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
