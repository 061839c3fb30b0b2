"""Let PyTorch's waiting threads sleep while other processes need the cores.

The threads of PyTorch's wheels are those of GNU's OpenMP. Between two operations they spin for some milliseconds. With
a core for each of them no other way to wait is as fast, but two such processes on the same cores stop each other.
OpenMP reads its policy once, when it is loaded. But it also spins 3,000 times shorter while it has more threads than
cores (manual of libgomp, ``GOMP_SPINCOUNT``): while other processes are busy, spare threads are added, which only
sleep. Figures: ``docs/measurements/own_data.md``.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from toolkit.config.process import STAT, may_spin

INTERVAL = 2.0  # seconds between two readings
_lock = threading.Lock()
_watch: Watch | None = None


def watch(threads: int, operation: Callable[[], object]) -> None:
    """Watch the machine from now on, where threads may spin.

    Args:
        threads: of PyTorch.
        operation: of PyTorch, large enough for all of them.
    """
    global _watch
    with _lock:
        if _watch is None and may_spin():
            cores = os.sched_getaffinity(0)
            if 1 < threads <= len(cores):
                _watch = Watch(cores, threads, operation)
                _watch.start()


class Watch(threading.Thread):
    """Thread that reads every two seconds how busy the machine is.

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
        try:
            before = self._read()
            while True:
                time.sleep(INTERVAL)
                moment, own, every = now = self._read()
                self.adjust(((every - before[2]) - (own - before[1])) / (moment - before[0]))
                before = now
        except (OSError, RuntimeError, ValueError):  # no file or no thread may be opened: the run is more important
            self.close()

    def adjust(self, busy_cores: float) -> None:
        """Start the spare threads or end them.

        Args:
            busy_cores: cores that other processes use.
        """
        wanted = busy_cores > len(self.cores) - self.threads + 0.5
        with self._lock:
            if wanted and not self.spare and not self._closed:
                # a team has one thread that is none of OpenMP's
                for _ in range((len(self.cores) - self.threads) // (self.threads - 1) + 1):
                    self.spare.append(_Team(self.operation))
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

    def _read(self) -> tuple[float, float, float]:
        """Return the time, and the seconds that this process and that all of them have computed."""
        return time.monotonic(), time.process_time(), self.computed()

    def computed(self, stat: Path = STAT) -> float:
        """Return the seconds that all processes have computed on the cores since the machine was started."""
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
