"""The TensorFlow twin of SGD."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from toolkit.optimizers.tf import Optimizer


class SGD(Optimizer):
    """``torch.optim.SGD``: the buffer sums gradients, not steps, so it does not depend on the schedule."""

    def _scalars(self, lr: tf.Tensor, dtype: str) -> dict[str, tf.Tensor]:
        return {"lr": tf.cast(lr, dtype)}

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: dict[str, tf.Tensor]) -> None:
        gradient = tf.cast(gradient, variable.dtype)
        if self._decays(variable):
            gradient = gradient + self.spec.weight_decay * variable
        if not self.spec.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate["lr"], delta=gradient)
            return
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self._moment("momentum_buffer", variable),
            lr=learning_rate["lr"],
            grad=gradient,
            momentum=tf.constant(self.spec.momentum, variable.dtype),
            use_nesterov=self.spec.nesterov,
        )
