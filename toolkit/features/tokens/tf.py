"""Token ids in TensorFlow."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from toolkit.features.tokens import spec as tokens


class Tokens(keras.layers.Layer):
    """See :class:`toolkit.features.tokens.spec.Tokens`.

    Args:
        spec: the neutral description.
        state: empty.
    """

    def __init__(self, spec: tokens.Tokens, state: dict[str, np.ndarray]) -> None:
        super().__init__(autocast=False)
        self.spec = spec
        self.built = True

    def call(self, source: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Hand on ``(batch, source)`` ids and ``(batch,)`` lengths, as int32."""
        return tf.cast(source, tf.int32), tf.cast(lengths, tf.int32)
