"""A small convolutional network, in TensorFlow."""

from __future__ import annotations

import keras
import tensorflow as tf

from toolkit.layers.basic.tf import Conv2d, Head, dense
from toolkit.layers.dropout.tf import Dropout
from toolkit.layers.normalization.tf import BatchNorm
from toolkit.models.cnn import spec as cnn


class Block(keras.layers.Layer):
    """Convolution, normalization, pooling, ReLU."""

    def __init__(self, spec: cnn.CNN, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, spec.kernel, bias=not spec.batch_norm)
        self.batch_norm = BatchNorm(outputs) if spec.batch_norm else None
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map ``(batch, height, width, inputs)`` to ``(batch, height // 2, width // 2, outputs)``."""
        x = self.conv(x)
        if self.batch_norm is not None:
            x = self.batch_norm(x, training=training)
        return tf.nn.relu(tf.nn.max_pool2d(x, 2, 2, "VALID"))


class CNN(keras.Model):
    """See :class:`toolkit.models.cnn.spec.CNN`.

    Args:
        spec: the neutral description.
        inputs: height, width and channels of an image.
        outputs: number of classes.
    """

    def __init__(self, spec: cnn.CNN, inputs: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        height, width, channels = inputs
        self.shape = [None, *inputs]
        self.flat = spec.flat(height, width)
        self.blocks = [Block(spec, *widths) for widths in spec.widths(channels)]
        self.dropout1 = Dropout(spec.dropout, spec.native_dropout)
        self.hidden = dense(self.flat, spec.hidden)
        self.dropout2 = Dropout(spec.dropout, spec.native_dropout)
        self.head = Head(spec.hidden, outputs)
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Compute the logits of a batch.

        Args:
            images: ``(batch, height, width, channels)``.

        Returns:
            ``(batch, outputs)`` logits, and the intermediates by name, in order.
        """
        x = tf.ensure_shape(images, self.shape)
        intermediates = {"images": images}
        for number, block in enumerate(self.blocks):
            x = block(x, training=training)
            intermediates[f"blocks.{number}"] = x
        x = self.dropout1(tf.reshape(x, [-1, self.flat]), training=training)
        x = tf.nn.relu(self.hidden(x))
        logits = self.head(self.dropout2(x, training=training))
        return logits, intermediates | {"hidden": x, "logits": logits}
