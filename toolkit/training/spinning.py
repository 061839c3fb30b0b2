"""Let PyTorch's waiting threads sleep while other processes need the cores.

PyTorch's threads are those of GNU's OpenMP. Between two operations they spin for some milliseconds. With a core for
each of them no other way to wait is as fast, but two such processes on the same cores stop each other. OpenMP reads its
policy once, when it is loaded. But it also spins 3,000 times shorter while it has more threads than cores (manual of
libgomp, ``GOMP_SPINCOUNT``): while other processes are busy, spare threads are added, which only sleep. Figures:
``docs/measurements/own_data.md``.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from toolkit.config.process import POLICIES

INTERVAL = 2.0  # seconds between two looks at the machine
STAT = Path("/proc/stat")
_lock = threading.Lock()
_watch: Watch | None = None


def watch(threads: int, operation: Callable[[], object]) -> None:
    """Watch the machine from now on, if threads spin and the user has not set how they wait.

    Args:
        threads: of PyTorch.
        operation: of PyTorch, large enough for all of them.
    """
    global _watch
    with _lock:
        if _watch is None and sys.platform == "linux" and not any(name in os.environ for name in POLICIES):
            cores = os.sched_getaffinity(0)
            if 1 < threads <= len(cores):
                _watch = Watch(cores, threads, operation)
                _watch.start()


class Watch(threading.Thread):
    """Thread that looks at the machine every two seconds.

    Args:
        cores: numbers of those that this process may use.
        threads, operation: see :func:`watch`.
    """

    def __init__(self, cores: Collection[int], threads: int, operation: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.cores, self.threads, self.operation = cores, threads, operation
        self.spare: list[_Team] = []
        self._lock, self._closed = threading.Lock(), False
        atexit.register(self.close)  # the end of the interpreter aborts in a thread that PyTorch's code is in

    def run(self) -> None:
        time_before, own_before, all_before = time.monotonic(), time.process_time(), self.used()
        while True:
            time.sleep(INTERVAL)
            now, own, used = time.monotonic(), time.process_time(), self.used()
            self.look(((used - all_before) - (own - own_before)) / (now - time_before))
            time_before, own_before, all_before = now, own, used

    def look(self, others: float) -> None:
        """Start the spare threads or end them.

        Args:
            others: cores that other processes use.
        """
        wanted = others > len(self.cores) - self.threads + 0.5
        with self._lock:
            if wanted and not self.spare and not self._closed:
                self.spare = [_Team(self.operation) for _ in range(len(self.cores) // self.threads)]
            elif not wanted:
                self._end_spare()

    def close(self) -> None:
        """End the spare threads, and start no more."""
        with self._lock:
            self._closed = True
            self._end_spare()

    def _end_spare(self) -> None:
        for team in self.spare:
            team.end.set()
            team.join()
        self.spare = []

    def used(self, stat: Path = STAT) -> float:
        """Return the time that all processes have computed on the cores since the machine was started, in seconds."""
        ticks = 0
        for line in stat.read_text().splitlines():
            name, *values = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in self.cores:
                user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, values)
                ticks += user + nice + system + irq + softirq
        return ticks / os.sysconf("SC_CLK_TCK")


class _Team(threading.Thread):
    """Thread with a team of OpenMP's threads that sleep, until ``end`` is set.

    Args:
        operation: see :func:`watch`.
    """

    def __init__(self, operation: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.operation, self.end = operation, threading.Event()
        self.start()

    def run(self) -> None:
        self.operation()
        self.end.wait()
