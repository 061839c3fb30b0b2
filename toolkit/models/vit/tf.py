"""Vision Transformer, in TensorFlow."""

from __future__ import annotations

import keras
import tensorflow as tf

from toolkit.layers.attention import tf as attention
from toolkit.layers.basic.tf import FeedForward, Head, dense, gelu
from toolkit.layers.dropout.tf import Dropout
from toolkit.layers.normalization.tf import LayerNorm
from toolkit.models.vit import spec as vit


class Attention(attention.Attention):
    """Normalization and multi-head self-attention (appendix A of the paper)."""

    def __init__(self, spec: vit.ViT) -> None:
        super().__init__(spec.dim, spec.heads)
        self.norm = LayerNorm(spec.dim)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map ``(batch, patches, dim)`` to the same shape."""
        x = self.norm(x)
        return self.dropout(self.attend(x, self.keys(x)), training=training)


class Block(keras.layers.Layer):
    """Attention and a feed-forward network (equations 2 and 3 of the paper)."""

    def __init__(self, spec: vit.ViT) -> None:
        super().__init__()
        self.attention = Attention(spec)
        self.feed_forward = FeedForward(spec.dim, spec.feed_forward, gelu, spec.dropout, spec.native_dropout)
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Return the sum after each module, in order; the last is the output of the block."""
        attention = x + self.attention(x, training=training)
        return {
            "attention": attention,
            "feed_forward": attention + self.feed_forward(attention, training=training),
        }


class ViT(keras.Model):
    """See :class:`toolkit.models.vit.spec.ViT`.

    Args:
        spec: the neutral description.
        inputs: height, width and channels of an image.
        outputs: number of classes.
    """

    def __init__(self, spec: vit.ViT, inputs: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.patch, self.shape = spec.patch, [None, *inputs]
        shapes = {name: parameter.shape for name, parameter in spec.parameters(inputs, outputs).items()}
        self.embed = dense(shapes["embed.weight"][1], spec.dim)
        token = spec.pool == "token"
        self.class_token = self.add_weight(shape=(spec.dim,), name="class_token") if token else None
        self.positions = self.add_weight(shape=shapes["positions"], name="positions")
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.blocks = [Block(spec) for _ in range(spec.layers)]
        self.norm = LayerNorm(spec.dim)
        self.head = Head(spec.dim, outputs)
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Compute the logits of a batch.

        Args:
            images: ``(batch, height, width, channels)``.

        Returns:
            ``(batch, outputs)`` logits, and the intermediates by name, in order.
        """
        x = self.embed(self._patches(tf.ensure_shape(images, self.shape)))
        intermediates = {"images": images, "embed": x}
        if self.class_token is not None:
            token = tf.tile(tf.cast(self.class_token, x.dtype)[None, None], [tf.shape(x)[0], 1, 1])
            x = tf.concat([token, x], 1)
        x = self.dropout(x + self.positions, training=training)
        for number, block in enumerate(self.blocks):
            outputs = block(x, training=training)
            x = outputs["feed_forward"]
            intermediates |= {f"blocks.{number}.{name}": value for name, value in outputs.items()}
        x = self.norm(x)
        pooled = tf.reduce_mean(tf.cast(x, self.variable_dtype), 1) if self.class_token is None else x[:, 0]
        logits = self.head(pooled)
        return logits, intermediates | {"norm": x, "logits": logits}

    def _patches(self, images: tf.Tensor) -> tf.Tensor:
        """Cut ``(batch, height, width, channels)`` into ``(batch, patches, patch * patch * channels)``, row by row."""
        _, height, width, channels = images.shape
        rows, columns, patch = height // self.patch, width // self.patch, self.patch
        split = tf.reshape(images, [-1, rows, patch, columns, patch, channels])
        return tf.reshape(tf.transpose(split, [0, 1, 3, 2, 4, 5]), [-1, rows * columns, patch * patch * channels])
