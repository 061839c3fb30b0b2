"""Learning-rate schedules: a factor on the optimizer's ``lr`` as a pure function of the step.

There is no state: a resumed run asks for the same step and gets the same factor. A warm-up longer than the run is
allowed (a trial of a few steps), the factor then never reaches 1.
"""

from __future__ import annotations

import math

from toolkit.config.spec import option, spec


def _warmup(step: int, warmup_steps: int) -> float:
    """Rises linearly from ``1 / warmup_steps`` at step 0 to 1 at step ``warmup_steps - 1``, and stays there."""
    return min(1.0, (step + 1) / max(1, warmup_steps))


@spec
class Constant:
    """The same learning rate throughout, after an optional linear warm-up."""

    warmup_steps: int = option(0, "steps over which the learning rate rises linearly to its full value", ge=0)

    def factor(self, step: int, total_steps: int) -> float:
        """The factor at the 0-based optimizer step ``step``; ``total_steps`` plays no part."""
        return _warmup(step, self.warmup_steps)


@spec
class InverseSquareRoot:
    """Linear warm-up, then decay with the inverse square root of the step.

    Vaswani et al. 2017, "Attention Is All You Need", equation 3, scaled so that the peak is 1 (there it is
    ``(dim * warmup_steps) ** -0.5``): ``min(n / w, sqrt(w / n))`` at the n-th step, counted from 1.
    """

    warmup_steps: int = option(1000, "steps to the peak; the decay afterwards is sqrt(warmup_steps / step)", ge=1)

    def factor(self, step: int, total_steps: int) -> float:
        """The factor at the 0-based optimizer step ``step``; ``total_steps`` plays no part."""
        return min((step + 1) / self.warmup_steps, math.sqrt(self.warmup_steps / (step + 1)))


@spec
class Cosine:
    """Linear warm-up to 1, then half a cosine down to ``final`` at the last step.

    Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.
    """

    warmup_steps: int = option(0, "steps over which the learning rate rises linearly to its full value", ge=0)
    final: float = option(0.0, "factor at the last step", ge=0, le=1)

    def factor(self, step: int, total_steps: int) -> float:
        """The factor at the 0-based optimizer step ``step`` of ``total_steps``; past the end it stays ``final``."""
        done = step + 1 - self.warmup_steps
        if done <= 0:
            return _warmup(step, self.warmup_steps)
        part = min(1.0, done / max(1, total_steps - self.warmup_steps))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * part))
