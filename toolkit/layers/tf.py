"""Layers of the TensorFlow twins, and their weights by canonical name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from toolkit.layers import spec as shared

FIRST = tf.VariableAggregation.ONLY_FIRST_REPLICA  # of a value that all devices compute alike


class Dropout(keras.layers.Layer):
    """Dropout whose mask is a hash of (seed, path, step, element): the same bits on both backends and after a resume.

    :func:`bind` must be called once and :func:`set_step` before every training step.

    Args:
        rate: probability of an element to be dropped; the others are scaled by ``1 / (1 - rate)``.
        native: draw from TensorFlow's stateless generator instead, keyed by the same. The masks are not those of the
            other backend.
    """

    def __init__(self, rate: float, native: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.native = native
        self.base: int | None = None
        self.step: tf.Variable | None = None
        self.rows: tuple[tf.Variable, tf.Variable] | None = None  # of share()
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
    """:func:`toolkit.layers.spec.dropout_mask`. Where ``elements`` is an int, no shape depends on a tensor: for XLA."""
    start, words = first // 2, elements // 2 + 1  # enough for an odd first one

    def known() -> tf.Tensor:
        return tf.slice(_hashed_indices(), [start], [words])

    def hashed() -> tf.Tensor:
        return _hash32(tf.cast(start + tf.range(words), tf.uint32))

    fits = start + words <= HASHED
    if isinstance(fits, bool):
        index = known() if fits else hashed()
    else:  # what is never taken must not be there either, where its shape is known to be impossible
        index = hashed() if isinstance(elements, int) else tf.cond(fits, known, hashed)
    halves = tf.reshape(tf.bitcast(_hash32(tf.bitwise.bitwise_xor(index, key)), tf.uint16), [-1])
    kept = tf.slice(halves, [first % 2], [elements])
    return kept >= tf.constant(shared.dropout_threshold(rate), tf.uint16)


HASHED = 2**20  # for 2 M elements in 4 MB


@functools.cache
def _hashed_indices() -> tf.Tensor:
    """Hashes of 0, 1, ...: the half of the work that is the same at every step."""
    with tf.init_scope():
        return tf.constant(shared.hash32(np.arange(HASHED)))


def bind(model: keras.layers.Layer, seed: int) -> None:
    """Give every dropout of ``model`` its key, from the seed and its path, and one counter of steps to all."""
    model.dropout_step = tf.Variable(0, trainable=False, dtype=tf.int64, name="dropout_step")
    for path, layer in _sublayers(model):
        if isinstance(layer, Dropout):
            layer.base = shared.dropout_base(seed, path)
            layer.step = model.dropout_step


def set_step(model: keras.layers.Layer, step: int | tf.Tensor) -> None:
    """Tell every dropout of ``model``, which :func:`bind` was given, which micro-batch of the run comes next."""
    model.dropout_step.assign(step)


def share(model: keras.layers.Layer) -> None:
    """Prepare ``model`` for batches that several devices share; each device then calls :func:`set_rows`. Call it in
    the strategy's scope."""

    def variable(name: str, dtype: tf.DType) -> tf.Variable:  # of which each device has its own
        kind = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": FIRST}
        return tf.Variable(0, trainable=False, dtype=dtype, name=name, **kind)

    model.rows = variable("rows_before", tf.int64), variable("rows_present", tf.int64)
    for _, layer in _sublayers(model):
        if isinstance(layer, (Dropout, BatchNorm)):
            layer.rows = model.rows


def set_rows(model: keras.layers.Layer, before: tf.Tensor, present: tf.Tensor) -> None:
    """Tell ``model``, on the device that calls, which rows of the whole batch come next.

    Args:
        before: how many of its rows lie before those of this device: its dropout masks are the whole batch's.
        present: False: the device has none, and works on a row that is not to count.
    """
    for variable, value in zip(model.rows, (before, present), strict=True):
        variable.assign(tf.cast(value, tf.int64))


def total(x: tf.Tensor) -> tf.Tensor:
    """The sum over all devices; so is its gradient, for each device's part goes into every one's loss."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def _word(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)


def _hash32(x: tf.Tensor) -> tf.Tensor:
    """:func:`toolkit.layers.spec.hash32`."""
    xor, shift = tf.bitwise.bitwise_xor, tf.bitwise.right_shift
    x = xor(x, shift(x, _word(16))) * _word(0x7FEB352D)
    x = xor(x, shift(x, _word(15))) * _word(0x846CA68B)
    return xor(x, shift(x, _word(16)))


def gelu(x: tf.Tensor) -> tf.Tensor:
    """``x`` times the normal distribution function of ``x`` (Hendrycks & Gimpel 2016), as torch's.

    ``tf.nn.gelu`` rounds the root of two to float32 first, which is 5e-9 off in float64.
    """
    return 0.5 * x * (1.0 + tf.math.erf(x * 0.5**0.5))


class LayerNorm(keras.layers.Layer):
    """Layer normalisation (Ba et al. 2016) over the channels.

    Keras's own differentiates the definition operation by operation, which takes more than twice the time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = self.add_weight(shape=(channels,), initializer="ones", name="weight")
        self.bias = self.add_weight(shape=(channels,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(_normalize(tf.cast(x, self.variable_dtype)), x.dtype) * self.weight + self.bias


@tf.custom_gradient
def _normalize(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Mean 0 and variance 1 along the last axis."""
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + shared.NORM_EPSILON)
    out = centred * scale

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        along = tf.reduce_mean(upstream * out, -1, keepdims=True)
        return scale * (upstream - tf.reduce_mean(upstream, -1, keepdims=True) - out * along)

    return out, gradient


class Embedding(keras.layers.Layer):
    """A vector for each token, in the precision of the weights; Keras's own also looks for negative ids."""

    def __init__(self, vocabulary: int, dim: int) -> None:
        # without a dtype Keras would still cast the weights where no other layer's call surrounds this one
        super().__init__(autocast=False, dtype=keras.config.floatx())
        self.weight = self.add_weight(shape=(vocabulary, dim), name="weight")
        self.built = True

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """``(batch, time)`` int -> ``(batch, time, dim)``."""
        return tf.gather(self.weight.value, tokens)


class BatchNorm(keras.layers.Layer):
    """Batch normalisation (Ioffe & Szegedy 2015), of sequences over the valid frames only: padding never counts.

    Otherwise ``torch.nn.BatchNorm1d`` and ``2d``: biased variance of the batch, unbiased running variance.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(autocast=False)  # statistics of bfloat16 activations need float32
        self.weight = self.add_weight(shape=(channels,), initializer="ones", name="weight")
        self.bias = self.add_weight(shape=(channels,), initializer="zeros", name="bias")
        self.running_mean, self.running_var = (
            self.add_weight(
                shape=(channels,), initializer=start, trainable=False, name=name, aggregation="only_first_replica"
            )
            for name, start in (("running_mean", "zeros"), ("running_var", "ones"))
        )
        self.rows: tuple[tf.Variable, tf.Variable] | None = None  # of share()
        self.built = True

    def call(self, x: tf.Tensor, valid: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Normalise ``x``.

        Args:
            x: sequences ``(batch, time, channels)``, or pictures ``(batch, height, width, channels)``.
            valid: ``(batch, time)``, which frames of sequences are no padding; None for pictures.
            training: by the statistics of the batch, not by the running ones.
        """
        if training and self.rows is not None:
            return self._shared(x, valid, tf.cast(self.rows[1], self.variable_dtype))
        if valid is None and x.dtype != tf.float64:
            precise = training and x.dtype == tf.float32 and not tf.config.list_physical_devices("GPU")
            return self._precise(x) if precise else self._fused(x, training)
        dtype, axes = x.dtype, list(range(len(x.shape) - 1))
        x = tf.cast(x, self.variable_dtype)
        if training:
            weight = tf.ones_like(x[..., :1]) if valid is None else tf.cast(valid[..., None], x.dtype)
            count = tf.maximum(tf.reduce_sum(weight), 1.0)
            mean = tf.reduce_sum(x * weight, axes) / count
            x = x - mean
            variance = tf.reduce_sum(tf.square(x) * weight, axes) / count
            self._run(mean, variance * (count / tf.maximum(count - 1.0, 1.0)))
        else:
            x, variance = x - self.running_mean, tf.convert_to_tensor(self.running_var)
        scale = self.weight * tf.math.rsqrt(variance + shared.NORM_EPSILON)
        return tf.cast(x * scale + self.bias, dtype)

    def _shared(self, x: tf.Tensor, valid: tf.Tensor | None, present: tf.Tensor) -> tf.Tensor:
        """By the statistics of the batch that several devices share, of which ``x`` is a part."""
        dtype = x.dtype
        x = tf.cast(x, self.variable_dtype)
        weight = present * (tf.ones_like(x[..., :1]) if valid is None else tf.cast(valid[..., None], x.dtype))
        count = tf.maximum(total(tf.reduce_sum(weight)), 1.0)
        mean = total(_sum_channels(x * weight)) / count
        x = x - mean
        variance = total(_sum_channels(tf.square(x) * weight)) / count
        self._run(mean, variance * (count / tf.maximum(count - 1.0, 1.0)))
        scale = self.weight * tf.math.rsqrt(variance + shared.NORM_EPSILON)
        return tf.cast(x * scale + self.bias, dtype)

    def _precise(self, x: tf.Tensor) -> tf.Tensor:
        y, mean, variance = _normalize_pictures(x, self.weight.value, self.bias.value)
        count = _pixels(x)
        self._run(mean, variance * (count / tf.maximum(count - 1.0, 1.0)))
        return y

    def _fused(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        """In one operation, which float64 and masks do not have: a ResNet then trains in 0.7 of the time."""
        known = [[], []] if training else [self.running_mean, self.running_var]
        y, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(  # the one in tf.nn raises an epsilon of 1e-5
            x=x,
            scale=self.weight,
            offset=self.bias,
            mean=known[0],
            variance=known[1],
            epsilon=shared.NORM_EPSILON,
            is_training=training,
        )
        if training:
            self._run(mean, unbiased)
        return y

    def _run(self, mean: tf.Tensor, unbiased: tf.Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        momentum = tf.constant(shared.BATCH_NORM_MOMENTUM, mean.dtype)
        self.running_mean.assign_add(momentum * (mean - self.running_mean))
        self.running_var.assign_add(momentum * (unbiased - self.running_var))


@tf.custom_gradient
def _normalize_pictures(
    x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor
) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]]:
    """Batch normalisation of pictures by the statistics of the batch, which are returned with it.

    On a CPU the fused operation, like a plain sum over all pixels, adds them one after the other in float32: for
    128 x 28 x 28 of them, mean and variance are 1e-4 off, and gradients as much. The sums here are short.
    """
    count = _pixels(x)
    mean = _sum_channels(x) / count
    centred = x - mean
    variance = _sum_channels(tf.square(centred)) / count
    scale = tf.math.rsqrt(variance + shared.NORM_EPSILON)
    normal = centred * scale

    def gradient(upstream: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        to_bias, to_weight = _sum_channels(upstream), _sum_channels(upstream * normal)
        return (weight * scale) * (upstream - to_bias / count - normal * (to_weight / count)), to_weight, to_bias

    return (normal * weight + bias, mean, variance), gradient


def _pixels(x: tf.Tensor) -> tf.Tensor:
    """How many there are in ``(batch, height, width, channels)``."""
    return tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), x.dtype)


def _sum_channels(x: tf.Tensor) -> tf.Tensor:
    """``(batch, ..., channels)`` -> ``(channels,)``, one axis at a time: each of the sums is short."""
    while len(x.shape) > 1:
        x = tf.reduce_sum(x, -2)
    return x


class Conv2d(keras.layers.Conv2D):
    """A convolution padded alike on all sides, ``torch.nn.Conv2d(..., padding=kernel // 2)``.

    Where the stride is 2, Keras's "same" pads the end alone.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: height and width, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__(outputs, kernel, stride, use_bias=bias)
        self.around = [kernel // 2] * 2
        self.build((None, None, None, inputs))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """``(batch, height, width, inputs)`` -> ``(batch, height, width, outputs)``, divided by the stride."""
        same = self.strides[0] == 1  # then "same" means just that, without a copy
        if not same and self.around[0]:
            x = tf.pad(x, [[0, 0], self.around, self.around, [0, 0]])
        x = tf.nn.conv2d(x, self.kernel, self.strides, "SAME" if same else "VALID")
        return tf.nn.bias_add(x, self.bias) if self.use_bias else x


KeyValue = tuple[tf.Tensor, tf.Tensor]  # keys and values, each (batch, heads, time, dim / heads)


class Attention(keras.layers.Layer):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

    A model's own adds what else stands there under the same name: a normalisation, dropout.

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
        """Keys and values of ``(batch, time, dim)``."""
        return self._split(self.key(x)), self._split(self.value(x))

    def attend(
        self,
        x: tf.Tensor,
        keys: KeyValue,
        masking: tf.Tensor | None = None,
        dropout: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
    ) -> tf.Tensor:
        """Attend.

        Args:
            x: ``(batch, queries, dim)``.
            keys: of :meth:`keys`.
            masking: added to the scores ``(batch, heads, queries, time)``: 0, or a great negative number to hide a key.
            dropout: of the attention weights.

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


class FeedForward(keras.layers.Layer):
    """Norm, expansion, activation, projection; dropout behind the last two.

    Args:
        dim: width of the vectors.
        inner: width between expansion and projection.
        activation: of each value.
        dropout, native: see :class:`Dropout`.
    """

    def __init__(
        self, dim: int, inner: int, activation: Callable[[tf.Tensor], tf.Tensor], dropout: float, native: bool
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm = LayerNorm(dim)
        self.linear1 = dense(dim, inner)
        self.linear2 = dense(inner, dim)
        self.dropout1 = Dropout(dropout, native)
        self.dropout2 = Dropout(dropout, native)
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """``(batch, time, dim)`` -> the same."""
        x = self.dropout1(self.activation(self.linear1(self.norm(x))), training=training)
        return self.dropout2(self.linear2(x), training=training)


class LSTM(keras.layers.Layer):
    """One layer in one direction with one bias; ``(batch, time, inputs)`` -> ``(batch, time, units)``.

    It always runs in the precision of its weights: bfloat16 rounding would add up over the steps. Keras's own layer
    differentiates its loop operation by operation, which takes twice the time.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(autocast=False, dtype=keras.config.floatx())  # see Embedding
        self.weight_ih_l0 = self.add_weight(shape=(4 * units, inputs), name="weight_ih_l0")
        self.weight_hh_l0 = self.add_weight(shape=(4 * units, units), name="weight_hh_l0")
        self.bias_ih_l0 = self.add_weight(shape=(4 * units,), initializer="zeros", name="bias_ih_l0")
        self.built = True

    def call(self, x: tf.Tensor, hidden: tf.Tensor | None = None) -> tf.Tensor:
        """Go over ``x`` from the state ``hidden`` ``(batch, units)``, or from zero; the cell begins with zero."""
        x = tf.transpose(tf.cast(x, self.variable_dtype), [1, 0, 2])
        gates = tf.tensordot(x, self.weight_ih_l0.value, [[2], [1]]) + self.bias_ih_l0
        if hidden is None:
            hidden = tf.zeros([tf.shape(x)[1], self.weight_hh_l0.shape[1]], x.dtype)
        return tf.transpose(_recur(gates, tf.transpose(self.weight_hh_l0), hidden), [1, 0, 2])

    def step(self, x: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One step: ``(batch, inputs)`` and twice ``(batch, units)`` -> the next state and cell."""
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
    """The recurrence of an LSTM, with all that does not depend on the step before kept out of the loops.

    Args:
        inputs: ``(time, batch, 4 units)``, what the layer's input and bias add to the gates.
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
        # the derivatives of the cell by its three gates, then of the output by the last gate and by the cell
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


class Subsample(keras.layers.Layer):
    """Two convolutions of stride 2 with ReLU, then a projection: a quarter of the frames (see ``spec.subsampled``)."""

    def __init__(self, inputs: int, channels: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.conv1 = built(keras.layers.Conv2D(channels, 3, 2, padding="valid"), None, None, 1)
        self.conv2 = built(keras.layers.Conv2D(channels, 3, 2, padding="valid"), None, None, channels)
        self.flat = channels * shared.subsampled(inputs)
        self.out = dense(self.flat, outputs, bias)
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """``(batch, frames, inputs)`` -> ``(batch, time, outputs)``."""
        x = tf.nn.relu(self.conv2(tf.nn.relu(self.conv1(x[..., None]))))
        shape = tf.shape(x)
        return self.out(tf.reshape(x, [shape[0], shape[1], self.flat]))


def built(layer: Any, *shape: int | None) -> Any:
    """Give ``layer`` its variables at once, for inputs ``(batch, *shape)``, and return it."""
    layer.build((None, *shape))
    return layer


def dense(inputs: int, outputs: int, bias: bool = True, **options: Any) -> keras.layers.Dense:
    """A Dense layer that has its variables already."""
    return built(keras.layers.Dense(outputs, use_bias=bias, **options), inputs)


class Head(keras.layers.Dense):
    """A linear layer that gives logits in the precision of its weights, also under mixed precision."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(outputs, dtype=keras.config.floatx())
        self.build((None, inputs))


def adopt(model: keras.layers.Layer, part: keras.layers.Layer) -> Callable[..., Any]:
    """Register the children of ``part`` as children of ``model``, under their own names.

    An encoder of a model adds no level to canonical names that way: ``blocks.0``, not ``encoder.blocks.0``. So initial
    weights, dropout masks and checkpoints do not depend on what stands on the encoder.

    Args:
        model: the layer that computes with ``part``.
        part: a layer with no variables of its own, only children.

    Returns:
        the forward pass of ``part``.

    Raises:
        ValueError: ``part`` has variables of its own, or ``model`` has a child of the same name.
    """
    own = [name for name, *_ in _leaves(part)]
    if own:
        raise ValueError(f"{type(part).__name__} has variables of its own: {', '.join(own)}")
    children = dict(_children(part))
    if taken := children.keys() & dict(_children(model)).keys():
        raise ValueError(f"{type(model).__name__} already has {', '.join(sorted(taken))}")
    for name, child in children.items():
        setattr(model, name, child)
    return part.call


def valid_frames(lengths: tf.Tensor, longest: tf.Tensor) -> tf.Tensor:
    """``(batch,)`` lengths -> ``(batch, longest)`` bool, true where there is no padding."""
    return tf.range(longest) < tf.cast(lengths, tf.int32)[:, None]


@dataclass(frozen=True)
class Slot:
    """A variable under its canonical name, with the way between Keras's layout and the canonical one."""

    name: str
    variable: keras.Variable
    to_keras: Callable[[np.ndarray], np.ndarray]
    to_canonical: Callable[[np.ndarray], np.ndarray]


def canonical_variables(model: keras.layers.Layer) -> list[Slot]:
    """Every variable of ``model`` with its canonical name: the path of attributes, then PyTorch's name for the leaf.

    Raises:
        TypeError: a variable is reached by no rule.
    """
    slots = [
        Slot(f"{path}.{leaf}" if path else leaf, variable, to_keras, to_canonical)
        for path, layer in _sublayers(model)
        for leaf, variable, to_keras, to_canonical in _leaves(layer)
    ]
    lost = {id(v): v.path for v in model.variables}
    for slot in slots:
        lost.pop(id(slot.variable), None)
    if lost:
        raise TypeError(f"no canonical name for {', '.join(lost.values())}")
    return slots


def get_weights(model: keras.layers.Layer) -> dict[str, np.ndarray]:
    """The variables of ``model`` by canonical name, in the canonical layout, copied."""
    return {
        slot.name: np.array(slot.to_canonical(slot.variable.numpy()), order="C") for slot in canonical_variables(model)
    }


def set_weights(model: keras.layers.Layer, weights: Mapping[str, np.ndarray]) -> None:
    """Overwrite every variable of ``model``.

    Raises:
        ValueError: a name is missing or unexpected, or a shape differs.
    """
    slots = canonical_variables(model)
    shared.match(weights, {slot.name: slot.to_canonical(slot.variable.numpy()).shape for slot in slots})
    for slot in slots:
        slot.variable.assign(np.ascontiguousarray(slot.to_keras(weights[slot.name])))


Leaf = tuple[str, keras.Variable, Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]


def _leaves(layer: keras.layers.Layer) -> Iterator[Leaf]:
    """The variables that a layer holds itself, with the rules of Keras's layouts; own layers have PyTorch's already."""
    kinds = keras.layers
    if isinstance(layer, kinds.Dense):
        yield "weight", layer.kernel, *_transposed(1, 0)
    elif isinstance(layer, kinds.DepthwiseConv1D):  # before Conv1D: (channels, 1, k) <-> (k, channels, 1)
        yield "weight", layer.kernel, *_transposed(2, 0, 1)
    elif isinstance(layer, kinds.Conv1D):  # (out, in, k) <-> (k, in, out)
        yield "weight", layer.kernel, *_transposed(2, 1, 0)
    elif isinstance(layer, kinds.Conv2D):  # (out, in, h, w) <-> (h, w, in, out)
        yield "weight", layer.kernel, *_transposed(2, 3, 1, 0)
    elif isinstance(layer, kinds.Embedding):
        yield "weight", layer.embeddings, *_transposed(0, 1)
    else:
        for name, value in vars(layer).items():
            if isinstance(value, keras.Variable) and not name.startswith("_"):
                yield name, value, *_transposed(*range(len(value.shape)))
    if getattr(layer, "use_bias", False):
        yield "bias", layer.bias, *_transposed(0)


def _transposed(*axes: int) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    back = np.argsort(axes)
    return lambda array: array.transpose(axes), lambda array: array.transpose(back)


def _sublayers(layer: keras.layers.Layer, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """``layer`` and all below it with their paths of attributes; lists count from 0, as ``torch.nn.ModuleList``."""
    yield path, layer
    for name, child in _children(layer):
        below = f"{path}.{name}" if path else name
        if isinstance(child, keras.layers.Layer):
            yield from _sublayers(child, below)
        else:
            for number, item in enumerate(child):
                if isinstance(item, keras.layers.Layer):
                    yield from _sublayers(item, f"{below}.{number}")


def _children(layer: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer | list[Any]]]:
    """Yield the layers and the lists of layers that ``layer`` holds, by attribute."""
    for name, value in vars(layer).items():
        items = value if isinstance(value, list) else [value]
        if not name.startswith("_") and any(isinstance(item, keras.layers.Layer) for item in items):
            yield name, value
