"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from toolkit.config.spec import option, spec
from toolkit.errors import ConfigError
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under
from toolkit.models.spec import Model

BLOCKS = 2


@spec
class CNN(Model):
    """Two convolutions with pooling and a hidden layer, after LeCun et al. 1998, "Gradient-Based Learning [...]".

    It is the "2 Conv+pooling" of Fashion-MNIST's table (Xiao et al. 2017), and with ``batch_norm`` (Ioffe & Szegedy
    2015) the "2 Conv+pooling+BN". Each block is a convolution, a normalization, max pooling over 2 x 2 pixels and a
    ReLU, which gives the same result after the pooling as before it and is faster there. The second block has twice the
    channels. A hidden layer with a ReLU and a linear layer follow.

    Initialization: convolutions He uniform, matrices Glorot uniform, biases zero, normalizations one and zero.
    """

    input: ClassVar[str] = "image"
    output: ClassVar[str] = "classes"

    channels: int = option(32, "channels of the first convolution; the second has twice as many", ge=1)
    kernel: int = option(3, "height and width of the convolutions in pixels; odd", ge=1)
    hidden: int = option(128, "width of the hidden layer", ge=1)
    batch_norm: bool = option(True, "normalize the output of each convolution")
    dropout: float = option(0.3, "dropout rate before and after the hidden layer", ge=0, lt=1)
    native_dropout: bool = option(False, "use the framework's dropout: faster, but masks differ between backends")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.kernel % 2 == 0:
            yield "kernel", f"found {self.kernel}, expected an odd number"

    def widths(self, channels: int) -> list[tuple[int, int]]:
        """Return input and output channels of each convolution, for images with ``channels``."""
        return [(channels, self.channels), (self.channels, 2 * self.channels)]

    def flat(self, height: int, width: int) -> int:
        """Return the input size of the hidden layer, for images of this size."""
        return (height // 2**BLOCKS) * (width // 2**BLOCKS) * 2 * self.channels

    def parameters(self, inputs: tuple[int, int, int], outputs: int) -> Parameters:
        """List the parameters of both twins by canonical name.

        Args:
            inputs: height, width and channels of an image.
            outputs: number of classes.

        Raises:
            ConfigError: the images are too small to be pooled twice.
        """
        height, width, channels = inputs
        if min(height, width) < 2**BLOCKS:
            raise ConfigError(
                f"model: found images of {height} x {width}, expected at least {2**BLOCKS} x {2**BLOCKS}; set "
                "features.size"
            )
        parameters: Parameters = {}
        for number, (before, after) in enumerate(self.widths(channels)):
            parameters |= under(f"blocks.{number}.conv", layers.conv2d(before, after, self.kernel, not self.batch_norm))
            if self.batch_norm:
                parameters |= under(f"blocks.{number}.batch_norm", layers.batch_norm(after))
        parameters |= under("hidden", layers.dense(self.flat(height, width), self.hidden))
        return parameters | under("head", layers.dense(self.hidden, outputs))
