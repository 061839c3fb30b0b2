"""Dropout in TensorFlow."""

from __future__ import annotations

import functools

import keras
import numpy as np
import tensorflow as tf

from toolkit.layers import spec as shared


class Dropout(keras.layers.Layer):
    """Dropout whose mask is a hash of (seed, path, step, element): the same bits on both backends and after a resume.

    Call ``toolkit.layers.tf.bind`` once, and ``set_step`` before every training step.

    Args:
        rate: probability of dropping an element; the others are scaled by ``1 / (1 - rate)``.
        native: draw from TensorFlow's stateless generator, keyed by the same. The masks differ from those of the
            other backend.
    """

    def __init__(self, rate: float, native: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.native = native
        self.base: int | None = None
        self.step: tf.Variable | None = None
        self.rows: tuple[tf.Variable, tf.Variable] | None = None  # before and present, see toolkit.layers.tf.share
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Drop elements of ``x``, whose last axis is the channels."""
        if not training or not self.rate:
            return x
        if self.base is None or self.step is None:
            raise RuntimeError("dropout has no key: call toolkit.layers.tf.bind(model, seed) first")
        if self.native:
            seed = tf.stack([tf.constant(self.base, tf.int64), self.step])
            return tf.nn.experimental.stateless_dropout(x, self.rate, seed)
        step = tf.cast(tf.bitwise.bitwise_and(self.step, 0xFFFFFFFF), tf.uint32)
        key = _hash32(tf.bitwise.bitwise_xor(_word(self.base), _hash32(step)))
        size = x.shape.num_elements() or tf.size(x)
        first = 0 if self.rows is None else tf.cast(self.rows[0], tf.int32) * (size // tf.shape(x)[0])
        keep = tf.cast(tf.reshape(_keep(size, key, self.rate, first), tf.shape(x)), x.dtype)
        return x * (keep * tf.constant(1.0 / (1.0 - self.rate), x.dtype))


def _keep(elements: tf.Tensor | int, key: tf.Tensor, rate: float, first: tf.Tensor | int = 0) -> tf.Tensor:
    """Compute :func:`toolkit.layers.spec.dropout_mask`. With an int ``elements`` every shape is static, for XLA."""
    start, words = first // 2, elements // 2 + 1  # enough for an odd first element

    def cached() -> tf.Tensor:
        return tf.slice(_hashed_indices(), [start], [words])

    def hashed() -> tf.Tensor:
        return _hash32(tf.cast(start + tf.range(words), tf.uint32))

    fits = start + words <= HASHED
    if isinstance(fits, bool):
        index = cached() if fits else hashed()
    else:  # a branch of tf.cond must not have an impossible shape, even if it is never taken
        index = hashed() if isinstance(elements, int) else tf.cond(fits, cached, hashed)
    halves = tf.reshape(tf.bitcast(_hash32(tf.bitwise.bitwise_xor(index, key)), tf.uint16), [-1])
    kept = tf.slice(halves, [first % 2], [elements])
    return kept >= tf.constant(shared.dropout_threshold(rate), tf.uint16)


HASHED = 2**20  # cached words: 2 M elements in 4 MB


@functools.cache
def _hashed_indices() -> tf.Tensor:
    """Hash 0, 1, ...: the half of the work that does not depend on the step."""
    with tf.init_scope():
        return tf.constant(shared.hash32(np.arange(HASHED)))


def _word(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)


def _hash32(x: tf.Tensor) -> tf.Tensor:
    """Compute :func:`toolkit.layers.spec.hash32`."""
    xor, shift = tf.bitwise.bitwise_xor, tf.bitwise.right_shift
    x = xor(x, shift(x, _word(16))) * _word(0x7FEB352D)
    x = xor(x, shift(x, _word(15))) * _word(0x846CA68B)
    return xor(x, shift(x, _word(16)))
