"""Metrics: name, direction of improvement and format of a figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A figure that a task measures on a split.

    Args:
        name: in results and logs.
        better: the direction of improvement.
        decimals: number of decimals shown; None: a fraction, shown in percent.
    """

    name: str
    better: Literal["smaller", "larger"] = "smaller"
    decimals: int | None = None

    def improves(self, value: float, best: float | None) -> bool:
        """Tell if a value is better than the best one so far, which may be NaN; NaN is never better than a number."""
        sign = 1 if self.better == "smaller" else -1
        return best is None or (math.isnan(best) and not math.isnan(value)) or sign * value < sign * best

    def format(self, value: float) -> str:
        """Format a value for people: rates in percent, other figures on their scale."""
        return f"{100 * value:.2f} %" if self.decimals is None else f"{value:.{self.decimals}f}"


LOSS = Metric("loss", decimals=3)
