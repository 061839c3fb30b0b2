"""Basic layers in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from toolkit.layers import spec as shared
from toolkit.layers.dropout.tf import Dropout
from toolkit.layers.normalization.tf import LayerNorm


def built(layer: Any, *shape: int | None) -> Any:
    """Create the variables of ``layer`` for inputs ``(batch, *shape)``, and return it."""
    layer.build((None, *shape))
    return layer


def dense(inputs: int, outputs: int, bias: bool = True, **options: Any) -> keras.layers.Dense:
    """Build a Dense layer together with its variables."""
    return built(keras.layers.Dense(outputs, use_bias=bias, **options), inputs)


class Head(keras.layers.Dense):
    """A linear layer whose logits have the precision of its weights, also under mixed precision."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(outputs, dtype=keras.config.floatx())
        self.build((None, inputs))


class Embedding(keras.layers.Layer):
    """An embedding in the precision of the weights. Keras's layer also looks for negative ids."""

    def __init__(self, vocabulary: int, dim: int) -> None:
        # without a dtype Keras would still cast the weights when this layer is called outside of another
        super().__init__(autocast=False, dtype=keras.config.floatx())
        self.weight = self.add_weight(shape=(vocabulary, dim), name="weight")
        self.built = True

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Look up ``(batch, time)`` int tokens: ``(batch, time, dim)``."""
        return tf.gather(self.weight.value, tokens)


class Conv2d(keras.layers.Conv2D):
    """A convolution with equal padding on all sides, ``torch.nn.Conv2d(..., padding=kernel // 2)``.

    Keras's "same" pads only the end if the stride is 2.

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
        """Map ``(batch, height, width, inputs)`` to ``(batch, height, width, outputs)``, divided by the stride."""
        same = self.strides[0] == 1  # then "same" is equal padding, without a copy
        if not same and self.around[0]:
            x = tf.pad(x, [[0, 0], self.around, self.around, [0, 0]])
        x = tf.nn.conv2d(x, self.kernel, self.strides, "SAME" if same else "VALID")
        return tf.nn.bias_add(x, self.bias) if self.use_bias else x


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Multiply ``x`` by the normal distribution function of ``x`` (Hendrycks & Gimpel 2016), as torch does.

    ``tf.nn.gelu`` rounds the root of two to float32 first, which is 5e-9 off in float64.
    """
    return 0.5 * x * (1.0 + tf.math.erf(x * 0.5**0.5))


class FeedForward(keras.layers.Layer):
    """Normalization, expansion, activation, projection; dropout after the last two.

    Args:
        dim: width of the vectors.
        inner: width between expansion and projection.
        activation: applied to each value between expansion and projection.
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
        """Map ``(batch, time, dim)`` to the same shape."""
        x = self.dropout1(self.activation(self.linear1(self.norm(x))), training=training)
        return self.dropout2(self.linear2(x), training=training)


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
        """Map ``(batch, frames, inputs)`` to ``(batch, time, outputs)``."""
        x = tf.nn.relu(self.conv2(tf.nn.relu(self.conv1(x[..., None]))))
        shape = tf.shape(x)
        return self.out(tf.reshape(x, [shape[0], shape[1], self.flat]))


def valid_frames(lengths: tf.Tensor, longest: tf.Tensor) -> tf.Tensor:
    """Return a ``(batch, longest)`` mask that is True for frames within the ``(batch,)`` lengths."""
    return tf.range(longest) < tf.cast(lengths, tf.int32)[:, None]
