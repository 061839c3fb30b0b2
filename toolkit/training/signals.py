"""SIGINT and SIGTERM during a training."""

from __future__ import annotations

import signal
import threading
from typing import Any

import numpy as np

from toolkit.data.exchange import Ranks
from toolkit.errors import STOPPING


class Signals:
    """A handler that turns the first SIGINT or SIGTERM into a flag, so that the step can finish and be saved.

    A second signal ends the process at once. Outside the main thread, where Python handles no signals, none is caught.
    """

    def __init__(self) -> None:
        self.caught = 0  # number of the signal that this process received; 0: none
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self.caught = 0
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._catch) for s in STOPPING}
        return self

    def _catch(self, signum: int, frame: Any) -> None:
        self.caught = signum
        for s in self._before:
            signal.signal(s, signal.SIG_DFL)

    def agree(self, ranks: Ranks) -> int:
        """Return the signal that any process received, so that all of them end after the same step; 0: none."""
        if ranks.ranks == 1:
            return self.caught
        counts = ranks.total(np.array([self.caught == signum for signum in STOPPING], np.float64))
        return next((int(signum) for signum, count in zip(STOPPING, counts, strict=True) if count), 0)

    def __exit__(self, *exc: Any) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)
