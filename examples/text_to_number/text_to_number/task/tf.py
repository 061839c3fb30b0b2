"""Text to number in TensorFlow."""

from __future__ import annotations

import tensorflow as tf

from toolkit.tasks.tf import Task


class Regression(Task):
    """See :class:`text_to_number.task.spec.Regression`."""

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return ``(batch,)`` scaled numbers and the model's intermediates."""
        return self.model(tf.cast(batch["source"], tf.int32), batch["source_lengths"], training=training)

    def loss(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.reduce_mean(_losses(self(batch, training=True)[0], batch))

    def predict(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"scaled": self(inputs, training=False)[0]}

    def evaluate(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        scaled = self(batch, training=False)[0]
        return {"loss": _losses(scaled, batch), "scaled": scaled}


def _losses(scaled: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
    return tf.square(scaled - tf.cast(batch["numbers"], scaled.dtype)) / 2
