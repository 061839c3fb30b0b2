"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from toolkit.config.spec import option, spec
from toolkit.errors import ConfigError
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under

if TYPE_CHECKING:
    from toolkit.config.schema import Run

BLOCKS = 2


@spec
class CNN:
    """Two convolutions with pooling and a hidden layer, after LeCun et al. 1998, "Gradient-Based Learning [...]".

    It is the "2 Conv+pooling" of the table that comes with Fashion-MNIST (Xiao et al. 2017), and with ``batch_norm``
    (Ioffe & Szegedy 2015) the "2 Conv+pooling+BN". Each block is a convolution, a normalisation, the largest of each
    2 x 2 pixels and a ReLU, which gives the same after the pooling as before it and is faster there. The second block
    has twice the channels. A hidden layer with a ReLU and a linear layer follow.

    Starts: convolutions He uniform, matrices Glorot uniform, biases zero, normalisations one and zero.
    """

    domains: ClassVar[tuple[str, ...]] = ("images",)

    channels: int = option(32, "channels of the first convolution; the second has twice as many", ge=1)
    kernel: int = option(3, "height and width of the convolutions in pixels; odd", ge=1)
    hidden: int = option(128, "width of the hidden layer", ge=1)
    batch_norm: bool = option(True, "normalise what each convolution gives")
    dropout: float = option(0.3, "probability of dropping a value in front of and behind the hidden layer", ge=0, lt=1)
    native_dropout: bool = option(False, "the framework's own dropout: faster, but other masks on each backend")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.kernel % 2 == 0:
            yield "kernel", f"found {self.kernel}, expected an odd number"

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Conditions between this model and other components."""
        yield from layers.check_native_dropout(self.native_dropout, run)

    def widths(self, channels: int) -> list[tuple[int, int]]:
        """Channels before and after each convolution, for pictures with so many."""
        return [(channels, self.channels), (self.channels, 2 * self.channels)]

    def flat(self, height: int, width: int) -> int:
        """Values that reach the hidden layer, for pictures of so many pixels."""
        return (height // 2**BLOCKS) * (width // 2**BLOCKS) * 2 * self.channels

    def parameters(self, inputs: tuple[int, int, int], outputs: int) -> Parameters:
        """What both twins have, by canonical name.

        Args:
            inputs: height, width and channels of a picture.
            outputs: number of classes.

        Raises:
            ConfigError: the pictures are too small to be pooled twice.
        """
        height, width, channels = inputs
        if min(height, width) < 2**BLOCKS:
            raise ConfigError(
                f"model: found pictures of {height} x {width}, expected at least {2**BLOCKS} x {2**BLOCKS}; set "
                "features.size"
            )
        made: Parameters = {}
        for number, (before, after) in enumerate(self.widths(channels)):
            made |= under(f"blocks.{number}.conv", layers.conv2d(before, after, self.kernel, not self.batch_norm))
            if self.batch_norm:
                made |= under(f"blocks.{number}.batch_norm", layers.batch_norm(after))
        made |= under("hidden", layers.dense(self.flat(height, width), self.hidden))
        return made | under("head", layers.dense(self.hidden, outputs))
