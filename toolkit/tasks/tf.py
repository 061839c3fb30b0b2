"""What the TensorFlow twins of all tasks share."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from toolkit.optimizers.tf import clip


class Task(keras.Model):
    """Features and a model under a loss: a plain ``keras.Model``, which the stock ``fit`` can train.

    A task adds ``call(batch, training)``, ``batch_loss(batch, training)`` and ``evaluate_batch(batch)``.

    Args:
        spec: the task's spec.
        features: from the batch's fields to what the model sees.
        model: returns its output and named intermediates.
    """

    clip_norm: float | None = None  # for the stock fit

    def __init__(self, spec: Any, features: keras.layers.Layer, model: keras.Model) -> None:
        super().__init__(autocast=False)  # under mixed precision bfloat16 would spoil waveforms, shares and the like
        self.spec = spec
        self.features = features
        self.model = model

    def batch_loss(self, batch: dict[str, tf.Tensor], training: bool = True) -> tf.Tensor:
        raise NotImplementedError

    @property
    def metrics(self) -> list[Any]:
        """None: ``fit`` would put its running mean, here empty, in the place of the loss of :meth:`train_step`."""
        return []

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One batch under the stock ``fit``. The loss is that batch's own."""
        batch = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            loss = self.batch_loss(batch, training=True)
        variables = self.trainable_variables
        gradients, _ = clip(tape.gradient(loss, variables), self.clip_norm or float("inf"))
        self.optimizer.apply(gradients, variables)
        return {"loss": loss}
