"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.config.spec import option, spec


@spec
class SGD:
    """Gradient descent with momentum: ``buffer = momentum * buffer + gradient``, ``weight -= lr * buffer``.

    Weight decay is an L2 term in the gradient. Nesterov's form steps along ``gradient + momentum * buffer``
    (Sutskever et al. 2013).
    """

    lr: float = option(1e-2, "peak learning rate", gt=0)
    momentum: float = option(0.9, "factor on the buffer at each step", ge=0, lt=1)
    nesterov: bool = option(False, "use Nesterov momentum; requires momentum > 0")
    weight_decay: float = option(0.0, "weight_decay * weight is added to the gradient", ge=0)

    @property
    def moments(self) -> tuple[str, ...]:
        """Names of the arrays kept for each parameter; without momentum there is none."""
        return ("momentum_buffer",) if self.momentum else ()

    def check(self) -> Iterator[tuple[str, str]]:
        """Nesterov requires momentum > 0."""
        if self.nesterov and self.momentum == 0:
            yield (
                "nesterov",
                "true is not supported with optimizer.momentum=0; set optimizer.momentum or optimizer.nesterov=false",
            )
