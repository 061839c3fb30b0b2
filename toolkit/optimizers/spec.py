"""Optimizers with torch's arithmetic in both frameworks.

``lr`` is the peak: the loop multiplies it by the schedule's factor at every step. Weight decay applies to the
parameters that :func:`toolkit.layers.parameters.decays` names (matrices and kernels, not biases and norms).

The state has canonical names and layouts, so that either backend resumes either's checkpoint: ``<moment>.<parameter>``
for each name in the spec's ``moments``, and ``step``, shape ``(1,)``, int64: the optimizer steps taken. AdamW's also
has ``exp_avg_sq_scale``, shape ``(1,)``, float64: what the second moments were multiplied with by the backend that
wrote them, 1 but for a constant of TensorFlow's kernel (see ``optimizers/tf.py``). A backend that reads its own state
takes it as it is, to the bit, and another's with the other factor divided out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.errors import ConfigError


@spec
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), epsilon after bias correction."""

    moments: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    lr: float = option(1e-3, "peak learning rate", gt=0)
    betas: tuple[float, float] = option((0.9, 0.999), "decay of the first and of the second moment", ge=0, lt=1)
    eps: float = option(1e-8, "added to the root of the bias-corrected second moment", gt=0)
    weight_decay: float = option(1e-2, "a weight shrinks by lr * weight_decay of itself at each step", ge=0)


@spec
class SGD:
    """Gradient descent with momentum: ``buffer = momentum * buffer + gradient``, ``weight -= lr * buffer``.

    Weight decay is an L2 term in the gradient. Nesterov's form steps along ``gradient + momentum * buffer``
    (Sutskever et al. 2013).
    """

    buffer: ClassVar[tuple[str, ...]] = ("momentum_buffer",)

    lr: float = option(1e-2, "peak learning rate", gt=0)
    momentum: float = option(0.9, "share of the buffer kept at each step", ge=0, lt=1)
    nesterov: bool = option(False, "look ahead along the buffer; needs momentum")
    weight_decay: float = option(0.0, "weight_decay * weight is added to the gradient", ge=0)

    @property
    def moments(self) -> tuple[str, ...]:
        """Without momentum there is no buffer to keep."""
        return self.buffer if self.momentum else ()

    def check(self) -> Iterator[tuple[str, str]]:
        """Nesterov's form without momentum is nothing."""
        if self.nesterov and self.momentum == 0:
            yield "nesterov", "found true with momentum 0, expected momentum above 0"


def moment_of(state: Mapping[str, np.ndarray], moment: str, name: str, scale: float) -> np.ndarray:
    """A parameter's moment as a backend wants it whose second moments are ``scale`` times the true ones."""
    found = state[f"{moment}.{name}"]
    written = float(state["exp_avg_sq_scale"][0]) if moment == "exp_avg_sq" else scale
    return found if written == scale else (found * (scale / written)).astype(found.dtype)


def check_state(
    state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], moments: tuple[str, ...]
) -> None:
    """Hold an optimizer's saved state against the model's parameters.

    Args:
        state: canonical name -> array, as described above.
        shapes: canonical parameter name -> shape.
        moments: the moments that this optimizer keeps.

    Raises:
        ConfigError: a name is missing or unexpected, or a shape differs.
    """
    expected = {f"{moment}.{name}": tuple(shape) for name, shape in shapes.items() for moment in moments}
    expected["step"] = (1,)
    if "exp_avg_sq" in moments:
        expected["exp_avg_sq_scale"] = (1,)
    problems = [f"optimizer state lacks {name}" for name in expected if name not in state]
    problems += [
        f"optimizer state has {name}, which this optimizer does not keep" for name in state if name not in expected
    ]
    problems += [
        f"optimizer state {name}: found shape {state[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if problems:
        more = [f"and {len(problems) - 5} more"] if len(problems) > 5 else []
        raise ConfigError(problems[:5] + more, "the checkpoint's optimizer state does not fit this model and optimizer")
