"""Residual network, in TensorFlow."""

from __future__ import annotations

import keras
import tensorflow as tf

from toolkit.layers.basic.tf import Conv2d, Head
from toolkit.layers.normalization.tf import BatchNorm
from toolkit.models.resnet import spec as resnet


class ConvNorm(keras.layers.Layer):
    """A convolution and its batch norm."""

    def __init__(self, conv: resnet.Conv) -> None:
        super().__init__()
        self.conv = Conv2d(*conv, bias=False)
        self.norm = BatchNorm(conv.outputs)
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.norm(self.conv(x), training=training)


class Block(keras.layers.Layer):
    """Two or three convolutions and a shortcut (figures 2 and 5 of the paper)."""

    def __init__(self, block: resnet.Block) -> None:
        super().__init__()
        self.block = block
        self._pairs = tuple((Conv2d(*conv, bias=False), BatchNorm(conv.outputs)) for conv in block.convs)
        for number, (conv, norm) in enumerate(self._pairs, 1):  # their canonical names
            setattr(self, f"conv{number}", conv)
            setattr(self, f"norm{number}", norm)
        self.projection = ConvNorm(block.projection) if block.projection else None
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map ``(batch, height, width, inputs)`` to ``(batch, height, width, outputs)``, divided by the stride."""
        y = x
        for number, (conv, norm) in enumerate(self._pairs, 1):
            y = norm(conv(y), training=training)
            if number < len(self._pairs):
                y = tf.nn.relu(y)
        return tf.nn.relu(y + self._shortcut(x, training))

    def _shortcut(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        if self.projection is not None:
            return self.projection(x, training=training)
        more, stride = self.block.outputs - self.block.inputs, self.block.stride
        return tf.pad(x[:, ::stride, ::stride], [[0, 0]] * 3 + [[0, more]]) if more or stride > 1 else x


class ResNet(keras.Model):
    """See :class:`toolkit.models.resnet.spec.ResNet`.

    Args:
        spec: the neutral description.
        inputs: height, width and channels of an image.
        outputs: number of classes.
    """

    def __init__(self, spec: resnet.ResNet, inputs: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.shape = [None, *inputs]
        self.pool = spec.stem == "imagenet"
        self.stem = ConvNorm(spec.stem_conv(inputs[2]))
        self.blocks = [Block(block) for block in spec.blocks()]
        self.head = Head(spec.blocks()[-1].outputs, outputs)
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Compute the logits of a batch.

        Args:
            images: ``(batch, height, width, channels)``.

        Returns:
            ``(batch, outputs)`` logits, and the intermediates by name, in order.
        """
        x = tf.nn.relu(self.stem(tf.ensure_shape(images, self.shape), training=training))
        if self.pool:
            # "same" would pad only the end; pixels are never negative here, so zeros do not change the maximum
            x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
        intermediates = {"images": images, "stem": x}
        for number, block in enumerate(self.blocks):
            x = block(x, training=training)
            intermediates[f"blocks.{number}"] = x
        pooled = tf.reduce_mean(tf.cast(x, self.variable_dtype), [1, 2])
        logits = self.head(pooled)
        return logits, intermediates | {"pooled": pooled, "logits": logits}
