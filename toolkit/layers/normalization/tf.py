"""Normalization in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from toolkit.layers import spec as shared
from toolkit.layers.devices.tf import total


class LayerNorm(keras.layers.Layer):
    """Layer normalization (Ba et al. 2016) over the channels.

    Keras's layer differentiates the definition operation by operation, which takes more than twice the time.
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
    """Normalize the last axis to mean 0 and variance 1."""
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + shared.NORM_EPSILON)
    out = centred * scale

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        along = tf.reduce_mean(upstream * out, -1, keepdims=True)
        return scale * (upstream - tf.reduce_mean(upstream, -1, keepdims=True) - out * along)

    return out, gradient


class BatchNorm(keras.layers.Layer):
    """Batch normalization (Ioffe & Szegedy 2015); for sequences over the valid frames, so padding never counts.

    As ``torch.nn.BatchNorm1d`` and ``2d``: biased variance of the batch, unbiased running variance.
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
        self.rows: tuple[tf.Variable, tf.Variable] | None = None  # before and present, see toolkit.layers.tf.share
        self.built = True

    def call(self, x: tf.Tensor, valid: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Normalize ``x``.

        Args:
            x: sequences ``(batch, time, channels)``, or images ``(batch, height, width, channels)``.
            valid: ``(batch, time)``, True for frames that are not padding; None for images.
            training: True normalizes by the statistics of the batch, False by the running statistics.
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
        """Normalize ``x``, this device's rows, by the statistics of the batch that several devices share."""
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
        y, mean, variance = _normalize_images(x, self.weight.value, self.bias.value)
        count = _pixels(x)
        self._run(mean, variance * (count / tf.maximum(count - 1.0, 1.0)))
        return y

    def _fused(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        """Normalize in one operation, without float64 or masks: a ResNet trains in 0.7 of the time."""
        running = [[], []] if training else [self.running_mean, self.running_var]
        y, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(  # the one in tf.nn raises an epsilon of 1e-5
            x=x,
            scale=self.weight,
            offset=self.bias,
            mean=running[0],
            variance=running[1],
            epsilon=shared.NORM_EPSILON,
            is_training=training,
        )
        if training:
            self._run(mean, unbiased)
        return y

    def _run(self, mean: tf.Tensor, unbiased: tf.Tensor) -> None:
        """Move the running statistics towards the batch's."""
        momentum = tf.constant(shared.BATCH_NORM_MOMENTUM, mean.dtype)
        self.running_mean.assign_add(momentum * (mean - self.running_mean))
        self.running_var.assign_add(momentum * (unbiased - self.running_var))


@tf.custom_gradient
def _normalize_images(
    x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor
) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]]:
    """Normalize images by the statistics of the batch, and return these too.

    On a CPU the fused operation, like a plain sum over all pixels, adds them one after the other in float32: with
    128 x 28 x 28 pixels, mean, variance and gradients are 1e-4 off. The sums here are short.
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
    """Count the pixels of ``(batch, height, width, channels)``."""
    return tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), x.dtype)


def _sum_channels(x: tf.Tensor) -> tf.Tensor:
    """Sum ``(batch, ..., channels)`` to ``(channels,)``, one axis at a time, so that every sum is short."""
    while len(x.shape) > 1:
        x = tf.reduce_sum(x, -2)
    return x
