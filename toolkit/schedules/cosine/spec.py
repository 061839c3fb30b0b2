"""Cosine decay."""

from __future__ import annotations

import math

from toolkit.config.spec import option, spec
from toolkit.schedules.warmup import warmup


@spec
class Cosine:
    """Linear warm-up to 1, then half a cosine down to ``final`` at the last step.

    Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.
    """

    warmup_steps: int = option(0, "steps over which the learning rate rises linearly to its peak", ge=0)
    final: float = option(0.0, "factor at the last step", ge=0, le=1)

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor at the 0-based optimizer step ``step`` of ``total_steps``; past the end, ``final``."""
        done = step + 1 - self.warmup_steps
        if done <= 0:
            return warmup(step, self.warmup_steps)
        progress = min(1.0, done / max(1, total_steps - self.warmup_steps))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))
