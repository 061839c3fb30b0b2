"""The TensorFlow twin of image classification."""

from __future__ import annotations

import tensorflow as tf

from toolkit.tasks.tf import Task, wide


def cross_entropy(log_probs: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Compute the loss of each image, in nats; see the module of the spec.

    Args:
        log_probs: ``(batch, classes)``.
        labels: ``(batch,)`` int32.
        smoothing: eps.
    """
    losses = -tf.gather(log_probs, labels, batch_dims=1)
    return (1 - smoothing) * losses - smoothing * tf.reduce_mean(log_probs, -1)


class Classification(Task):
    """Features, model and cross entropy: images in, loss or log-probabilities out.

    Args:
        spec: the task's spec.
        features: maps ``(images[, boxes, flips, erased, partners, shares])`` to pixels.
        model: maps pixels to ``(logits, intermediates)``.
    """

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return ``(batch, classes)`` logits and the model's intermediates."""
        drawn = (batch.get(name) for name in ("boxes", "flips", "erased", "partners", "shares"))
        return self.model(self.features(batch["images"], *drawn), training=training)

    def loss(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return the mean loss over the images, in float32 (float64 if the model is)."""
        log_probs = _log_probs(self(batch, training=True)[0])
        labels, share = batch["labels"], tf.cast(batch["shares"], log_probs.dtype)
        losses, others = (
            cross_entropy(log_probs, y, self.spec.label_smoothing)
            for y in (labels, tf.gather(labels, batch["partners"]))
        )
        return tf.reduce_mean(share * losses + (1 - share) * others)

    def predict(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return ``log_probs (batch, classes)`` float32."""
        return {"log_probs": tf.cast(_log_probs(self(inputs, training=False)[0]), tf.float32)}

    def evaluate(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the outputs of :meth:`predict`, and ``loss (batch,)`` without smoothing."""
        log_probs = _log_probs(self(batch, training=False)[0])
        return {"loss": cross_entropy(log_probs, batch["labels"]), "log_probs": tf.cast(log_probs, tf.float32)}


def _log_probs(logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.log_softmax(wide(logits))
