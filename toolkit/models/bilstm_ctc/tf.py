"""Bidirectional LSTM encoder with a CTC head, in TensorFlow."""

from __future__ import annotations

import keras
import tensorflow as tf

from toolkit.encoders.bilstm.tf import BiLSTM
from toolkit.layers.basic.tf import Head
from toolkit.layers.tf import adopt
from toolkit.models.bilstm_ctc import spec as neutral


class BiLSTMCTC(keras.Model):
    """See :class:`toolkit.models.bilstm_ctc.spec.BiLSTMCTC`.

    Args:
        spec: the neutral description.
        inputs: size of a frame of features.
        outputs: size of the vocabulary with the blank.
    """

    def __init__(self, spec: neutral.BiLSTMCTC, inputs: int, outputs: int) -> None:
        super().__init__()
        self.encode = adopt(self, BiLSTM(spec, inputs))
        self.head = Head(spec.width, outputs)
        self.built = True

    def call(
        self, features: tf.Tensor, lengths: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Compute the logits of a batch.

        Args:
            features: ``(batch, frames, inputs)``.
            lengths: ``(batch,)`` frames.
            training: True applies dropout and batch statistics.

        Returns:
            ``(batch, time, outputs)`` logits, ``(batch,)`` their lengths, and the intermediates by name, in order.
        """
        x, lengths, intermediates = self.encode(features, lengths, training=training)
        logits = self.head(x)
        return logits, lengths, intermediates | {"logits": logits}
