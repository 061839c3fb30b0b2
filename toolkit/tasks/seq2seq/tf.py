"""The TensorFlow twin of sequence-to-sequence translation."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from toolkit.layers.basic.tf import valid_frames
from toolkit.tasks.tf import Task, wide


def smoothed_losses(logits: tf.Tensor, targets: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Compute the cross entropy of each target with label smoothing, in nats; see the module of the spec.

    Args:
        logits: ``(targets, vocabulary)``.
        targets: ``(targets,)`` int32.
        smoothing: eps.

    Returns:
        ``(targets,)`` in the precision of the logits.
    """

    @tf.custom_gradient
    def compute(logits: tf.Tensor) -> Any:
        normalizers = tf.reduce_logsumexp(logits, -1)
        chosen = tf.gather(logits, targets, batch_dims=1)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            spread = smoothing / tf.cast(tf.shape(logits)[1], logits.dtype)
            derivative = (tf.exp(logits - normalizers[:, None]) - spread) * upstream[:, None]
            positions = tf.stack([tf.range(tf.size(targets)), targets], 1)
            return tf.tensor_scatter_nd_add(derivative, positions, (smoothing - 1) * upstream)

        return normalizers - (1 - smoothing) * chosen - smoothing * tf.reduce_mean(logits, -1), gradient

    return compute(logits)


class Seq2Seq(Task):
    """Features, model and loss: source and translation in, loss or the next token's log-probabilities out.

    Args:
        spec: the task's spec.
        features: none; the model embeds token ids.
        model: maps ``(source, source lengths, previous tokens)`` to ``(logits, intermediates)``.
    """

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return ``(batch, targets, vocabulary)`` logits and the model's intermediates."""
        previous = tf.pad(batch["tokens"], [[0, 0], [1, 0]])
        source, lengths = _source(batch)
        return self.model(source, lengths, previous, training=training)

    def _target_losses(
        self, batch: dict[str, tf.Tensor], smoothing: float, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the losses, 0 at padding, and a mask of the targets as 0 and 1; both ``(batch, targets)``."""
        logits, _ = self(batch, training=training)
        tokens, lengths = tf.cast(batch["tokens"], tf.int32), tf.cast(batch["token_lengths"], tf.int32)
        shape = tf.shape(logits)
        targets = tf.pad(tf.where(valid_frames(lengths, shape[1] - 1), tokens, 0), [[0, 0], [0, 1]])
        real = valid_frames(lengths + 1, shape[1])
        losses = smoothed_losses(tf.reshape(wide(logits), [-1, shape[2]]), tf.reshape(targets, [-1]), smoothing)
        return tf.where(real, tf.reshape(losses, shape[:2]), 0.0), tf.cast(real, losses.dtype)

    def loss(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return the mean loss over the targets, in float32 (float64 if the model is)."""
        losses, real = self._target_losses(batch, self.spec.label_smoothing, training=True)
        return tf.reduce_sum(losses) / tf.reduce_sum(real)

    def evaluate(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return ``loss (batch,)``, the mean over an example's targets without smoothing, and ``tokens (batch,)``."""
        losses, real = self._target_losses(batch, 0.0, training=False)
        counts = tf.reduce_sum(real, -1)
        return {"loss": tf.reduce_sum(losses, -1) / counts, "tokens": tf.cast(counts, tf.int32)}

    def begin(self, inputs: dict[str, tf.Tensor], width: int) -> dict[str, tf.Tensor]:
        """Return the initial state of a search: the encoded sources with ``width`` empty translations each."""
        source, lengths = _source(inputs)
        return self.model.start(source, lengths, width)

    def advance(
        self, state: dict[str, tf.Tensor], tokens: tf.Tensor, parents: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Compute the log-probabilities of the next token.

        Args:
            state: of :meth:`begin` or of the previous step.
            tokens: ``(batch * width,)``, the last token of each row.
            parents: ``(batch * width,)``, the row of the previous step that each row continues.

        Returns:
            ``(batch * width, vocabulary)`` float32, and the next state.
        """
        logits, state = self.model.step(state, tokens, parents)
        return tf.cast(tf.nn.log_softmax(wide(logits)), tf.float32), state


def _source(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return ``(batch, source)`` token ids and ``(batch,)`` lengths, as int32."""
    return tf.cast(batch["source"], tf.int32), tf.cast(batch["source_lengths"], tf.int32)
