"""Metrics: how a figure is called, which direction is better, and how a person reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A figure that a task measures on a split.

    Args:
        name: in results and logs.
        better: the direction of improvement.
        decimals: that it is shown with; None: a fraction that is shown in percent.
    """

    name: str
    better: Literal["smaller", "larger"] = "smaller"
    decimals: int | None = None

    def improves(self, value: float, best: float | None) -> bool:
        """Compare with the best value so far, which may not be a number."""
        sign = 1 if self.better == "smaller" else -1
        return best is None or not sign * value >= sign * best

    def format(self, value: float) -> str:
        """Format a value for people: rates in percent, other figures on their scale."""
        return f"{100 * value:.2f} %" if self.decimals is None else f"{value:.{self.decimals}f}"


LOSS = Metric("loss", decimals=3)
