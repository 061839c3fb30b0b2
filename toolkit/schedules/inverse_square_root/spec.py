"""Inverse square root decay."""

from __future__ import annotations

import math

from toolkit.config.spec import option, spec


@spec
class InverseSquareRoot:
    """Linear warm-up, then decay with the inverse square root of the step.

    Vaswani et al. 2017, "Attention Is All You Need", equation 3, scaled so that the peak is 1 (there it is
    ``(dim * warmup_steps) ** -0.5``): ``min(n / w, sqrt(w / n))`` at the n-th step, counted from 1.
    """

    warmup_steps: int = option(1000, "steps to the peak; the decay afterwards is sqrt(warmup_steps / step)", ge=1)

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor at the 0-based optimizer step ``step``; ``total_steps`` is ignored."""
        return min((step + 1) / self.warmup_steps, math.sqrt(self.warmup_steps / (step + 1)))
