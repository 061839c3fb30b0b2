"""Conformer encoder in TensorFlow."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from toolkit.encoders.conformer import spec as conformer
from toolkit.layers import spec as shared
from toolkit.layers.basic.tf import FeedForward, Subsample, built, dense, valid_frames
from toolkit.layers.dropout.tf import Dropout
from toolkit.layers.normalization.tf import BatchNorm, LayerNorm


class Attention(keras.layers.Layer):
    """Multi-head self-attention over relative positions (figure 3 of the paper)."""

    def __init__(self, spec: conformer.Conformer) -> None:
        super().__init__()
        self.heads = spec.heads
        self.size = spec.dim // spec.heads
        self.norm = LayerNorm(spec.dim)
        self.query = dense(spec.dim, spec.dim)
        self.key = dense(spec.dim, spec.dim, bias=False)
        self.value = dense(spec.dim, spec.dim)
        self.position = dense(spec.dim, spec.dim, bias=False)
        self.out = dense(spec.dim, spec.dim)
        self.position_bias_u = self.add_weight(shape=(spec.heads, self.size), name="position_bias_u")
        self.position_bias_v = self.add_weight(shape=(spec.heads, self.size), name="position_bias_v")
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.built = True

    def call(self, x: tf.Tensor, positions: tf.Tensor, masking: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Attend from every step to every step.

        Args:
            x: ``(batch, time, dim)``.
            positions: ``(2 time, dim)``.
            masking: ``(batch, 1, time)``, added to the scores: a large negative number for padding, else 0.
            training: True applies dropout.

        Returns:
            ``(batch, time, dim)``.
        """
        batch, time = tf.shape(x)[0], tf.shape(x)[1]
        split = [batch, time, self.heads, self.size]
        x = self.norm(x)
        query = tf.reshape(self.query(x), split) / math.sqrt(self.size)
        by_content = tf.transpose(query + self.position_bias_u / math.sqrt(self.size), [2, 0, 1, 3])
        by_position = tf.transpose(query + self.position_bias_v / math.sqrt(self.size), [2, 0, 1, 3])
        key = tf.transpose(tf.reshape(self.key(x), split), [2, 0, 1, 3])
        value = tf.transpose(tf.reshape(self.value(x), split), [2, 0, 1, 3])
        position = tf.transpose(tf.reshape(self.position(positions), [2 * time, self.heads, self.size]), [1, 0, 2])
        by_position = tf.reshape(by_position, [self.heads, batch * time, self.size])  # no broadcast over the batch
        position_scores = tf.matmul(by_position, position, transpose_b=True)
        position_scores = _shift(tf.reshape(position_scores, [self.heads, batch, time, 2 * time]))
        scores = tf.matmul(by_content, key, transpose_b=True) + position_scores + masking
        mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), value), [1, 2, 0, 3])
        mixed = tf.reshape(mixed, [batch, time, self.heads * self.size])
        return self.dropout(self.out(mixed), training=training)


def _shift(scores: tf.Tensor) -> tf.Tensor:
    """Shift scores from relative to absolute positions (Dai et al. 2019, app. B): ``(.., t, 2 t)`` -> ``(.., t, t)``.

    Column ``c`` of row ``r`` holds the score at distance ``t - 1 - c``. Key ``k`` is at distance ``r - k``, hence in
    column ``t - 1 - r + k``: if the flat scores are cut into rows that are one shorter, every row starts at ``t - 1``.
    """
    shape = tf.shape(scores)
    matrices, time = shape[0] * shape[1], shape[2]
    # tf.slice: the gradient of [...] takes three times as long
    flat = tf.slice(tf.reshape(scores, [matrices, 2 * time * time]), [0, time - 1], [matrices, (2 * time - 1) * time])
    rows = tf.slice(tf.reshape(flat, [matrices * time, 2 * time - 1]), [0, 0], [matrices * time, time])
    return tf.reshape(rows, [shape[0], shape[1], time, time])


class Convolution(keras.layers.Layer):
    """Gated pointwise convolution, depthwise convolution, batch norm, SiLU, pointwise convolution (figure 2)."""

    def __init__(self, spec: conformer.Conformer) -> None:
        super().__init__()
        self.norm = LayerNorm(spec.dim)
        self.pointwise1 = dense(spec.dim, 2 * spec.dim)
        depthwise = keras.layers.DepthwiseConv1D(spec.kernel, padding="same", use_bias=False)
        self.depthwise = built(depthwise, None, spec.dim)
        self.batch_norm = BatchNorm(spec.dim)
        self.pointwise2 = dense(spec.dim, spec.dim)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.built = True

    def call(self, x: tf.Tensor, valid: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map ``(batch, time, dim)`` and a ``(batch, time)`` mask to ``(batch, time, dim)``."""
        values, gates = tf.split(self.pointwise1(self.norm(x)), 2, axis=-1)
        x = values * tf.sigmoid(gates)
        x = x * tf.cast(valid[..., None], x.dtype)  # zeros follow an utterance, as they would without a batch
        x = tf.nn.silu(self.batch_norm(self.depthwise(x), valid, training=training))
        return self.dropout(self.pointwise2(x), training=training)


class Block(keras.layers.Layer):
    """One Conformer block (equation 1 of the paper)."""

    def __init__(self, spec: conformer.Conformer) -> None:
        super().__init__()
        arguments = (spec.dim, spec.feed_forward, tf.nn.silu, spec.dropout, spec.native_dropout)
        self.feed_forward1 = FeedForward(*arguments)
        self.attention = Attention(spec)
        self.convolution = Convolution(spec)
        self.feed_forward2 = FeedForward(*arguments)
        self.norm = LayerNorm(spec.dim)
        self.built = True

    def call(
        self, x: tf.Tensor, positions: tf.Tensor, valid: tf.Tensor, masking: tf.Tensor, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Return the output of every module, in order; the last is that of the block."""
        feed_forward1 = x + 0.5 * self.feed_forward1(x, training=training)
        attention = feed_forward1 + self.attention(feed_forward1, positions, masking, training=training)
        convolution = attention + self.convolution(attention, valid, training=training)
        feed_forward2 = convolution + 0.5 * self.feed_forward2(convolution, training=training)
        return {
            "feed_forward1": feed_forward1,
            "attention": attention,
            "convolution": convolution,
            "feed_forward2": feed_forward2,
            "norm": self.norm(feed_forward2),
        }


class Positions(keras.layers.Layer):
    """Embeddings of relative positions: a fixed table of sinusoids."""

    def __init__(self, spec: conformer.Conformer) -> None:
        super().__init__()
        self.longest = spec.max_positions
        self.table = tf.constant(shared.positions(self.longest, spec.dim))
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Return ``(2 time, dim)`` embeddings for an input ``(batch, time, dim)``.

        Raises:
            tf.errors.InvalidArgumentError: the input is longer than ``max_positions``.
        """
        time = tf.shape(x)[1]
        short = tf.debugging.assert_less_equal(time, self.longest, "the input has more steps than model.max_positions")
        with tf.control_dependencies([short] if short is not None else []):  # or the slice may fail first
            time = tf.identity(time)
        return tf.cast(self.table[self.longest - time : self.longest + time], x.dtype)


class Conformer(keras.layers.Layer):
    """See :class:`toolkit.encoders.conformer.spec.Conformer`.

    Args:
        spec: the neutral description.
        inputs: size of a frame of features.
    """

    def __init__(self, spec: conformer.Conformer, inputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.subsample = Subsample(inputs, spec.subsampling_channels, spec.dim)
        self.positions = Positions(spec)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.blocks = [Block(spec) for _ in range(spec.layers)]
        self.built = True

    def call(
        self, features: tf.Tensor, lengths: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Encode a batch.

        Args:
            features: ``(batch, frames, inputs)``.
            lengths: ``(batch,)`` frames.
            training: True applies dropout and batch statistics.

        Returns:
            ``(batch, time, dim)``, ``(batch,)`` lengths in steps, and the intermediates by name, in order.

        Raises:
            tf.errors.InvalidArgumentError: the input is longer than ``max_positions``.
        """
        x = self.subsample(features)
        lengths = self.spec.output_length(lengths)
        intermediates = {"features": features, "subsample": x}
        positions = self.positions(x)
        valid = valid_frames(lengths, tf.shape(x)[1])
        masking = tf.cast(~valid[:, None], x.dtype) * tf.constant(shared.MASKED_SCORE, x.dtype)
        x = self.dropout(x, training=training)
        for number, block in enumerate(self.blocks):
            outputs = block(x, positions, valid, masking, training=training)
            x = outputs["norm"]
            intermediates |= {f"blocks.{number}.{name}": value for name, value in outputs.items()}
        return x, lengths, intermediates
