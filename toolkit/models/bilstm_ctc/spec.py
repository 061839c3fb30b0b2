"""Bidirectional LSTM encoder with a CTC head."""

from __future__ import annotations

from typing import ClassVar

from toolkit.config.spec import spec
from toolkit.encoders.bilstm.spec import BiLSTM
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under
from toolkit.models.spec import Model


@spec
class BiLSTMCTC(BiLSTM, Model):
    """A linear layer on the Bidirectional LSTM encoder gives the logits of CTC.

    The defaults have 2.3 M parameters.
    """

    input: ClassVar[str] = "audio"
    output: ClassVar[str] = "frames"

    def parameters(self, inputs: int, outputs: int) -> Parameters:
        """List the parameters of both twins by canonical name.

        Args:
            inputs: size of a frame of features, at least 7.
            outputs: size of the vocabulary with the blank.
        """
        return self.encoder_parameters(inputs) | under("head", layers.dense(self.width, outputs))
