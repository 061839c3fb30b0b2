"""AdamW."""

from __future__ import annotations

from typing import ClassVar

from toolkit.config.spec import option, spec


@spec
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), epsilon after bias correction."""

    moments: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    lr: float = option(1e-3, "peak learning rate", gt=0)
    betas: tuple[float, float] = option((0.9, 0.999), "decay rates of the first and the second moment", ge=0, lt=1)
    eps: float = option(1e-8, "added to the root of the bias-corrected second moment", gt=0)
    weight_decay: float = option(1e-2, "each step subtracts lr * weight_decay * weight", ge=0)
