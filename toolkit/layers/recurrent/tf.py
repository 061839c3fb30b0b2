"""Recurrent layers in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class LSTM(keras.layers.Layer):
    """One layer in one direction with one bias; ``(batch, time, inputs)`` -> ``(batch, time, units)``.

    It always runs in the precision of its weights, because bfloat16 rounding would accumulate over the steps. Keras's
    layer differentiates its loop operation by operation, which takes twice the time.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(autocast=False, dtype=keras.config.floatx())  # see toolkit.layers.basic.tf.Embedding
        self.weight_ih_l0 = self.add_weight(shape=(4 * units, inputs), name="weight_ih_l0")
        self.weight_hh_l0 = self.add_weight(shape=(4 * units, units), name="weight_hh_l0")
        self.bias_ih_l0 = self.add_weight(shape=(4 * units,), initializer="zeros", name="bias_ih_l0")
        self.built = True

    def call(self, x: tf.Tensor, hidden: tf.Tensor | None = None) -> tf.Tensor:
        """Run over ``x`` from the state ``hidden`` ``(batch, units)``, or from zero; the cell starts at zero."""
        x = tf.transpose(tf.cast(x, self.variable_dtype), [1, 0, 2])
        gates = tf.tensordot(x, self.weight_ih_l0.value, [[2], [1]]) + self.bias_ih_l0
        if hidden is None:
            hidden = tf.zeros([tf.shape(x)[1], self.weight_hh_l0.shape[1]], x.dtype)
        return tf.transpose(_recur(gates, tf.transpose(self.weight_hh_l0), hidden), [1, 0, 2])

    def step(self, x: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Run one step: ``(batch, inputs)`` and twice ``(batch, units)`` -> the next state and cell."""
        x = tf.cast(x, self.variable_dtype)
        gates = tf.matmul(x, self.weight_ih_l0.value, transpose_b=True) + self.bias_ih_l0
        gates += tf.matmul(hidden, self.weight_hh_l0.value, transpose_b=True)
        enter, forget, new, leave = tf.split(gates, 4, -1)
        cell = tf.sigmoid(forget) * cell + tf.sigmoid(enter) * tf.tanh(new)
        return tf.sigmoid(leave) * tf.tanh(cell), cell


@tf.custom_gradient
def _recur(
    inputs: tf.Tensor, weight: tf.Tensor, hidden: tf.Tensor
) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]]:
    """Compute the recurrence of an LSTM; whatever does not depend on the previous step stays outside the loops.

    Args:
        inputs: ``(time, batch, 4 units)``, the contribution of the layer's input and bias to the gates.
        weight: ``(units, 4 units)``, recurrent.
        hidden: ``(batch, units)``, the state before the first step.

    Returns:
        ``(time, batch, units)``.
    """
    time, units, dtype = tf.shape(inputs)[0], weight.shape[0], inputs.dtype
    first, zero = hidden, tf.zeros_like(hidden)

    def array(width: int) -> tf.TensorArray:
        return tf.TensorArray(dtype, time, element_shape=[None, width])

    def unstack(values: tf.Tensor) -> tf.TensorArray:
        return array(values.shape[-1]).unstack(values)

    steps = unstack(inputs)

    def forward(t: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor, *kept: tf.TensorArray) -> tuple[Any, ...]:
        gates = steps.read(t) + tf.matmul(hidden, weight)
        enter, forget, _, leave = tf.split(tf.sigmoid(gates), 4, -1)
        cell = forget * cell + enter * tf.tanh(gates[:, 2 * units : 3 * units])
        hidden = leave * tf.tanh(cell)
        return t + 1, hidden, cell, *(a.write(t, v) for a, v in zip(kept, (gates, cell, hidden), strict=True))

    start = (0, first, zero, array(4 * units), array(units), array(units))
    kept = tf.while_loop(lambda t, *_: t < time, forward, start, parallel_iterations=1)[3:]
    gates, cells, hiddens = (a.stack() for a in kept)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        before = tf.concat([zero[None], cells[:-1]], 0)
        enter, forget, _, leave = tf.split(tf.sigmoid(gates), 4, -1)
        new, out = tf.tanh(gates[..., 2 * units : 3 * units]), tf.tanh(cells)
        # derivatives of the cell by its three gates, and of the output by the last gate and by the cell
        slopes = unstack(
            tf.concat(
                [
                    new * enter * (1 - enter),
                    before * forget * (1 - forget),
                    enter * (1 - tf.square(new)),
                    out * leave * (1 - leave),
                ],
                -1,
            )
        )
        cell_slopes, forgets, arriving = unstack(leave * (1 - tf.square(out))), unstack(forget), unstack(upstream)
        back_weight = tf.transpose(weight)

        def backward(t: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor, kept: tf.TensorArray) -> tuple[Any, ...]:
            hidden += arriving.read(t)
            cell += hidden * cell_slopes.read(t)
            step = tf.concat([cell, cell, cell, hidden], -1) * slopes.read(t)
            return t - 1, tf.matmul(step, back_weight), cell * forgets.read(t), kept.write(t, step)

        start = (time - 1, zero, zero, array(4 * units))
        _, to_first, _, inner = tf.while_loop(lambda t, *_: t >= 0, backward, start, parallel_iterations=1)
        inner = inner.stack()
        last = tf.reshape(tf.concat([first[None], hiddens[:-1]], 0), [-1, units])
        return inner, tf.matmul(last, tf.reshape(inner, [-1, 4 * units]), transpose_a=True), to_first

    return hiddens, gradient
