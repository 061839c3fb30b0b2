"""The TensorFlow twin of AdamW."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from toolkit.optimizers.tf import Optimizer


class AdamW(Optimizer):
    """``torch.optim.AdamW``.

    TensorFlow's fused kernel adds epsilon to the uncorrected root, so epsilon and the learning rate passed to it
    include the corrections. In float32 it computes ``1 - float32(beta)`` where torch computes ``float32(1 - beta)``;
    for beta 0.999 this makes the second moment smaller by one constant factor, 1 - 1.3e-5, which epsilon and the
    learning rate also include: the weights agree within rounding.
    """

    def scale(self) -> float:
        return self._scale(self.moments["exp_avg_sq"][0].dtype)

    def _scale(self, dtype: str) -> float:
        number, beta = np.dtype(dtype).type, self.spec.betas[1]
        return (1 - float(number(beta))) / float(number(1 - beta))

    def _scalars(self, lr: tf.Tensor, dtype: str) -> dict[str, tf.Tensor]:
        t = tf.cast(self._iterations + 1, tf.float64)
        beta1, beta2 = (tf.constant(beta, tf.float64) for beta in self.spec.betas)
        root = tf.sqrt((1 - tf.pow(beta2, t)) * self._scale(dtype))
        return {
            "lr": tf.cast(lr * root / (1 - tf.pow(beta1, t)), dtype),
            "eps": tf.cast(self.spec.eps * root, dtype),
            "keep": tf.cast(1 - lr * self.spec.weight_decay, dtype),
        }

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: dict[str, tf.Tensor]) -> None:
        if self._decays(variable):
            variable.assign(variable * learning_rate["keep"])
        zero = tf.zeros([], variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._moment("exp_avg", variable),
            v=self._moment("exp_avg_sq", variable),
            beta1_power=zero,  # the bias corrections are in lr and epsilon
            beta2_power=zero,
            lr=learning_rate["lr"],
            beta1=tf.constant(self.spec.betas[0], variable.dtype),
            beta2=tf.constant(self.spec.betas[1], variable.dtype),
            epsilon=learning_rate["eps"],
            grad=tf.cast(gradient, variable.dtype),
        )
