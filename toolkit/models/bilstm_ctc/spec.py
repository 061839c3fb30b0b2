"""Bidirectional LSTM with a CTC head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from toolkit.config.spec import option, spec
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@spec
class BiLSTMCTC:
    """A convolutional front end and bidirectional LSTMs, after Amodei et al. 2016, "Deep Speech 2".

    Two convolutions of stride 2 give a vector every fourth frame. Each layer normalises its input over the batch
    (section 3.2 of the paper, over the valid frames of all utterances), runs an LSTM forwards and one backwards, which
    begins at the true end of each utterance, and adds the two (equation 3). A linear layer gives the logits of CTC.
    The paper's recurrence is plain or a GRU and its convolutions are wider and normalised; its sizes are 7 layers of
    1280 units and more. Here the defaults have 2.4 M parameters.

    Starts: matrices Glorot uniform, the convolutions He uniform with biases uniform within ``1 / sqrt(fan in)``,
    recurrent weights uniform with variance ``1 / units``, other biases zero but for one at the forget gates,
    normalisations one and zero.
    """

    domains: ClassVar[tuple[str, ...]] = ("speech",)

    units: int = option(256, "width of the LSTM in each direction and of the vectors between layers", ge=1)
    layers: int = option(2, "bidirectional layers", ge=1)
    subsampling_channels: int = option(32, "channels of the two convolutions in front", ge=1)
    dropout: float = option(0.1, "probability of dropping a value after the front end and after each layer", ge=0, lt=1)
    native_dropout: bool = option(False, "the framework's own dropout: faster, but other masks on each backend")

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Conditions between this model and other components."""
        yield from layers.check_native_dropout(self.native_dropout, run)

    def output_length(self, frames: Any) -> Any:
        """Logits for so many frames of features; int, numpy array or tensor."""
        return layers.subsampled(frames)

    def parameters(self, inputs: int, outputs: int) -> Parameters:
        """What both twins have, by canonical name.

        Args:
            inputs: size of a frame of features, at least 7.
            outputs: size of the vocabulary with the blank.
        """
        block = (
            under("batch_norm", layers.batch_norm(self.units))
            | under("forwards", layers.lstm(self.units, self.units))
            | under("backwards", layers.lstm(self.units, self.units))
        )
        made = under("subsample", layers.subsample(inputs, self.subsampling_channels, self.units, bias=False))
        for number in range(self.layers):
            made |= under(f"blocks.{number}", block)
        return made | under("head", layers.dense(self.units, outputs))
