"""Attention in TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from toolkit.layers.basic.tf import dense

KeyValue = tuple[tf.Tensor, tf.Tensor]  # keys and values, each (batch, heads, time, dim / heads)


class Attention(keras.layers.Layer):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

    A model subclasses this to add what its attention also has, such as a normalization and dropout.

    Args:
        dim: width of the vectors, a multiple of ``heads``.
        heads: each of ``dim / heads`` values.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.size = dim // heads
        self.query = dense(dim, dim)
        self.key = dense(dim, dim, bias=False)
        self.value = dense(dim, dim)
        self.out = dense(dim, dim)
        self.built = True

    def keys(self, x: tf.Tensor) -> KeyValue:
        """Compute keys and values of ``(batch, time, dim)``."""
        return self._split(self.key(x)), self._split(self.value(x))

    def attend(
        self,
        x: tf.Tensor,
        keys: KeyValue,
        masking: tf.Tensor | None = None,
        dropout: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
    ) -> tf.Tensor:
        """Attend from ``x`` to ``keys``.

        Args:
            x: ``(batch, queries, dim)``.
            keys: result of :meth:`keys`.
            masking: added to the scores ``(batch, heads, queries, time)``: 0, or a large negative number to hide a key.
            dropout: applied to the attention weights.

        Returns:
            ``(batch, queries, dim)``.
        """
        key, value = keys
        scores = tf.matmul(self._split(self.query(x) / math.sqrt(self.size)), key, transpose_b=True)
        weights = tf.nn.softmax(scores if masking is None else scores + masking)
        mixed = tf.transpose(tf.matmul(dropout(weights), value), [0, 2, 1, 3])
        return self.out(tf.reshape(mixed, tf.shape(x)))

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(x)
        return tf.transpose(tf.reshape(x, [shape[0], shape[1], self.heads, self.size]), [0, 2, 1, 3])
