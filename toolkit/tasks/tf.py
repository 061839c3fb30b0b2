"""The base of the TensorFlow twins of tasks."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def wide(logits: tf.Tensor) -> tf.Tensor:
    """Return logits in float32, or in float64 if the model is."""
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


class Task(keras.layers.Layer):
    """Features and a model under a loss.

    It is a ``Layer`` because ``loss``, ``predict`` and ``evaluate`` mean something else in a ``keras.Model``. A task
    adds ``call(batch, training)`` and the methods that its spec names (:class:`toolkit.tasks.spec.Task`).

    Args:
        spec: the task's spec.
        features: compute the input of the model; None if it takes the batch itself.
        model: returns its output and named intermediates.
    """

    def __init__(self, spec: Any, features: keras.layers.Layer | None, model: keras.Model) -> None:
        super().__init__(autocast=False)  # under mixed precision bfloat16 would spoil waveforms, shares and the like
        self.spec = spec
        self.features: Any = features
        self.model = model
        self.built = True

    def loss(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Compute the training loss."""
        raise NotImplementedError

    def evaluate(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Compute outputs and figures of each example."""
        raise NotImplementedError
