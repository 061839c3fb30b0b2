"""The mean of embeddings in TensorFlow."""

from __future__ import annotations

import keras
import tensorflow as tf

from text_to_number.model import spec as bag
from toolkit.layers.basic.tf import Embedding, Head, dense, valid_frames


class Bag(keras.Model):
    """See :class:`text_to_number.model.spec.Bag`."""

    def __init__(self, spec: bag.Bag, inputs: int, outputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = Embedding(inputs, spec.dim)
        self.linear = dense(spec.dim, spec.hidden)
        self.head = Head(spec.hidden, outputs)
        self.built = True

    def call(
        self, tokens: tf.Tensor, lengths: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Map ``(batch, time)`` tokens to ``(batch,)`` numbers and the intermediates."""
        vectors = self.embedding(tokens)
        valid = tf.cast(valid_frames(lengths, tf.shape(tokens)[1])[..., None], vectors.dtype)
        mean = tf.reduce_sum(vectors * valid, 1) / tf.cast(lengths[:, None], vectors.dtype)
        number = self.head(tf.nn.relu(self.linear(mean)))[:, 0]
        return number, {"mean": mean, "number": number}
