"""The linear warm-up of the schedules.

A schedule is a factor on the optimizer's ``lr`` as a pure function of the step, called by the neutral loop, so it has
no twins. It has no state: a resumed run asks for the same step and gets the same factor. A warm-up longer than the run
is allowed; the factor then never reaches 1.
"""

from __future__ import annotations


def warmup(step: int, warmup_steps: int) -> float:
    """Rise linearly from ``1 / warmup_steps`` at step 0 to 1 at step ``warmup_steps - 1``, and stay there."""
    return min(1.0, (step + 1) / max(1, warmup_steps))
