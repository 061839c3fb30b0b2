"""The progress bar of a training."""

from __future__ import annotations

import math
import time
from typing import Any


class ProgressBar:
    """Steps, loss, examples a second and the remaining time, on a terminal only.

    Args:
        total: steps of the run.
        done: steps already done.
        hidden: measure the speed, and show nothing.
    """

    def __init__(self, total: int, done: int, hidden: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console()
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:.1f} examples/s"),
            TimeRemainingColumn(),
            console=console,
            disable=hidden or not console.is_terminal,  # a log file needs whole lines and no bar
            transient=True,
        )
        self._task = self._bar.add_task("train", total=total, completed=done, loss=math.nan, rate=0.0)
        self._examples = 0
        self._since = self._paused = time.perf_counter()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._bar.stop()

    def advance(self, loss: float, examples: int) -> None:
        """Show a step that was done."""
        self._examples += examples
        self._bar.update(self._task, advance=1, loss=loss, rate=self._speed())

    def rate(self) -> float:
        """Return the examples a second since the last call."""
        speed = self._speed()
        self._examples, self._since = 0, time.perf_counter()
        return round(speed, 2)

    def _speed(self) -> float:
        return self._examples / max(time.perf_counter() - self._since, 1e-9)

    def pause(self) -> None:
        """Stop the clock during a validation."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        """Start the clock again."""
        self._since += time.perf_counter() - self._paused
