"""Constant learning rate."""

from __future__ import annotations

from toolkit.config.spec import option, spec
from toolkit.schedules.warmup import warmup


@spec
class Constant:
    """The same learning rate throughout, after an optional linear warm-up."""

    warmup_steps: int = option(0, "steps over which the learning rate rises linearly to its peak", ge=0)

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor at the 0-based optimizer step ``step``; ``total_steps`` is ignored."""
        return warmup(step, self.warmup_steps)
