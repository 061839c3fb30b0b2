"""Conformer encoder with a CTC head."""

from __future__ import annotations

from typing import ClassVar

from toolkit.config.spec import spec
from toolkit.encoders.conformer.spec import Conformer
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under
from toolkit.models.spec import Model


@spec
class ConformerCTC(Conformer, Model):
    """A linear layer on the Conformer encoder gives the logits of CTC.

    tiny (the defaults) has 1.0 M parameters. The paper counts 10.3 M for small and 30.7 M for medium, including an LSTM
    decoder that CTC does not have.
    """

    input: ClassVar[str] = "audio"
    output: ClassVar[str] = "frames"

    @property
    def longest(self) -> int | None:
        return self.max_positions

    def parameters(self, inputs: int, outputs: int) -> Parameters:
        """List the parameters of both twins by canonical name.

        Args:
            inputs: size of a frame of features, at least 7.
            outputs: size of the vocabulary with the blank.
        """
        return self.encoder_parameters(inputs) | under("head", layers.dense(self.width, outputs))
