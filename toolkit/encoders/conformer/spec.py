"""Conformer encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.config.spec import option, spec
from toolkit.layers import spec as layers
from toolkit.layers.parameters import Parameter, glorot
from toolkit.layers.spec import Parameters, under


@spec
class Conformer:
    """Gulati et al. 2020, "Conformer: Convolution-augmented Transformer for Speech Recognition", encoder only.

    Two convolutions of stride 2 give one vector for every four frames. Each block is half a feed-forward module,
    relative self-attention (Transformer-XL, Dai et al. 2019, appendix B), a convolution module, half a feed-forward
    module and a normalization.

    The defaults are the tiny size. The paper's small encoder has 16 layers, dim 144, feed_forward 576, heads 4,
    kernel 31 and subsampling_channels 144; its medium encoder has 16 layers, dim 256, feed_forward 1024, heads 4,
    kernel 31 and subsampling_channels 256. The paper's kernel of 32 is 31 here, so that it has a centre.

    Initialization: matrices and depthwise kernels Glorot uniform, convolutions before a ReLU He uniform, position
    biases Glorot uniform, biases of the front end uniform within ``1 / sqrt(fan in)``, other biases zero,
    normalizations one and zero.
    """

    dim: int = option(96, "width of the vectors between modules", ge=2)
    layers: int = option(4, "number of blocks", ge=1)
    heads: int = option(4, "attention heads", ge=1)
    feed_forward: int = option(384, "inner width of the feed-forward modules", ge=1)
    kernel: int = option(15, "width of the depthwise convolution in steps of four frames; odd", ge=1)
    subsampling_channels: int = option(32, "channels of the two convolutions in the front end", ge=1)
    dropout: float = option(0.1, "dropout rate inside and at the end of each module", ge=0, lt=1)
    native_dropout: bool = option(False, "use the framework's dropout: faster, but masks differ between backends")
    max_positions: int = option(4096, "longest input in steps of four frames (40 ms at a hop of 10 ms)", ge=1)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.dim % 2:
            yield "dim", f"found {self.dim}, expected an even number"
        if self.dim % self.heads:
            yield "dim", f"found {self.dim}, expected a multiple of heads ({self.heads})"
        if self.kernel % 2 == 0:
            yield "kernel", f"found {self.kernel}, expected an odd number"

    @property
    def width(self) -> int:
        """Size of the vectors that the encoder returns."""
        return self.dim

    def output_length(self, frames: Any) -> Any:
        """Return the number of vectors for ``frames`` frames of features; int, numpy array or tensor."""
        return layers.subsampled(frames)

    def encoder_parameters(self, inputs: int) -> Parameters:
        """List the encoder's parameters by canonical name.

        Args:
            inputs: size of a frame of features, at least 7.
        """
        parameters = under("subsample", layers.subsample(inputs, self.subsampling_channels, self.dim))
        for number in range(self.layers):
            parameters |= under(f"blocks.{number}", self._block())
        return parameters

    def _block(self) -> Parameters:
        dim = self.dim
        feed_forward = layers.feed_forward(dim, self.feed_forward)
        per_head = Parameter((self.heads, dim // self.heads), glorot(dim // self.heads, 1))
        attention = (
            {"position_bias_u": per_head, "position_bias_v": per_head}
            | under("norm", layers.layer_norm(dim))
            | under("position", layers.dense(dim, dim, bias=False))
            | layers.attention(dim)
        )
        convolution = (
            under("norm", layers.layer_norm(dim))
            | under("pointwise1", layers.dense(dim, 2 * dim))
            | under("depthwise", layers.depthwise(dim, self.kernel))
            | under("batch_norm", layers.batch_norm(dim))
            | under("pointwise2", layers.dense(dim, dim))
        )
        return (
            under("feed_forward1", feed_forward)
            | under("attention", attention)
            | under("convolution", convolution)
            | under("feed_forward2", feed_forward)
            | under("norm", layers.layer_norm(dim))
        )
