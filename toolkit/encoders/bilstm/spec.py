"""Bidirectional LSTM encoder."""

from __future__ import annotations

from typing import Any

from toolkit.config.spec import option, spec
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under


@spec
class BiLSTM:
    """A convolutional front end and bidirectional LSTMs, after Amodei et al. 2016, "Deep Speech 2".

    Two convolutions of stride 2 give one vector for every four frames. Each layer normalizes its input over the batch
    (section 3.2 of the paper, over the valid frames of all utterances), runs one LSTM forwards and one backwards from
    the true end of each utterance, and adds the two (equation 3). The paper uses plain or GRU recurrence, wider and
    normalized convolutions, and 7 layers of 1280 units and more.

    Initialization: matrices Glorot uniform, convolutions He uniform with biases uniform within ``1 / sqrt(fan in)``,
    recurrent weights uniform with variance ``1 / units``, forget gate biases one, other biases zero, normalizations
    one and zero.
    """

    units: int = option(256, "width of the LSTM in each direction and of the vectors between layers", ge=1)
    layers: int = option(2, "number of bidirectional layers", ge=1)
    subsampling_channels: int = option(32, "channels of the two convolutions in the front end", ge=1)
    dropout: float = option(0.1, "dropout rate after the front end and after each layer", ge=0, lt=1)
    native_dropout: bool = option(False, "use the framework's dropout: faster, but masks differ between backends")

    @property
    def width(self) -> int:
        """Size of the vectors that the encoder returns."""
        return self.units

    def output_length(self, frames: Any) -> Any:
        """Return the number of vectors for ``frames`` frames of features; int, numpy array or tensor."""
        return layers.subsampled(frames)

    def encoder_parameters(self, inputs: int) -> Parameters:
        """List the encoder's parameters by canonical name.

        Args:
            inputs: size of a frame of features, at least 7.
        """
        block = (
            under("batch_norm", layers.batch_norm(self.units))
            | under("forwards", layers.lstm(self.units, self.units))
            | under("backwards", layers.lstm(self.units, self.units))
        )
        parameters = under("subsample", layers.subsample(inputs, self.subsampling_channels, self.units, bias=False))
        for number in range(self.layers):
            parameters |= under(f"blocks.{number}", block)
        return parameters
