"""Bidirectional LSTM encoder in TensorFlow."""

from __future__ import annotations

import keras
import tensorflow as tf

from toolkit.encoders.bilstm import spec as bilstm
from toolkit.layers.basic.tf import Subsample, valid_frames
from toolkit.layers.dropout.tf import Dropout
from toolkit.layers.normalization.tf import BatchNorm
from toolkit.layers.recurrent.tf import LSTM


class Block(keras.layers.Layer):
    """Batch norm and the sum of an LSTM in each direction."""

    def __init__(self, spec: bilstm.BiLSTM) -> None:
        super().__init__()
        self.batch_norm = BatchNorm(spec.units)
        self.forwards = LSTM(spec.units, spec.units)
        self.backwards = LSTM(spec.units, spec.units)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.built = True

    def call(self, x: tf.Tensor, lengths: tf.Tensor, valid: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map ``(batch, time, units)``, ``(batch,)`` lengths and ``(batch, time)`` mask to ``(batch, time, units)``."""
        x = self.batch_norm(x, valid, training=training)
        backwards = tf.reverse_sequence(self.backwards(tf.reverse_sequence(x, lengths, 1, 0)), lengths, 1, 0)
        return self.dropout(self.forwards(x) + backwards, training=training)


class BiLSTM(keras.layers.Layer):
    """See :class:`toolkit.encoders.bilstm.spec.BiLSTM`.

    Args:
        spec: the neutral description.
        inputs: size of a frame of features.
    """

    def __init__(self, spec: bilstm.BiLSTM, inputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.subsample = Subsample(inputs, spec.subsampling_channels, spec.units, bias=False)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.blocks = [Block(spec) for _ in range(spec.layers)]
        self.built = True

    def call(
        self, features: tf.Tensor, lengths: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Encode a batch.

        Args:
            features: ``(batch, frames, inputs)``.
            lengths: ``(batch,)`` frames.
            training: True applies dropout and batch statistics.

        Returns:
            ``(batch, time, units)``, ``(batch,)`` lengths in steps, and the intermediates by name, in order.
        """
        x = self.subsample(features)
        lengths = self.spec.output_length(lengths)
        intermediates = {"features": features, "subsample": x}
        valid = valid_frames(lengths, tf.shape(x)[1])
        x = self.dropout(x, training=training)
        for number, block in enumerate(self.blocks):
            x = block(x, lengths, valid, training=training)
            intermediates[f"blocks.{number}"] = x
        return x, lengths, intermediates
