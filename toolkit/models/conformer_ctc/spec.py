"""Conformer encoder with a CTC head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from toolkit.config.spec import option, spec
from toolkit.layers import spec as layers
from toolkit.layers.parameters import Parameter, glorot
from toolkit.layers.spec import Parameters, under

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@spec
class ConformerCTC:
    """Gulati et al. 2020, "Conformer: Convolution-augmented Transformer for Speech Recognition", encoder only.

    Two convolutions of stride 2 give a vector every fourth frame. Each block is half a feed-forward module, relative
    self-attention (Transformer-XL, Dai et al. 2019, appendix B), a convolution module, half a feed-forward module and a
    normalisation. A linear layer gives the logits of CTC.

    Sizes: tiny (the defaults, 1.0 M parameters), small (16 layers, dim 144, feed_forward 576, heads 4, kernel 31,
    subsampling_channels 144) and medium (16 layers, dim 256, feed_forward 1024, heads 4, kernel 31,
    subsampling_channels 256). The last two are the encoders of the paper, whose 10.3 M and 30.7 M also count an LSTM
    decoder that CTC does not have; its kernel of 32 is 31 here, to be centred.

    Starts: matrices and depthwise kernels Glorot uniform, the convolutions in front of a ReLU He uniform, position
    biases Glorot uniform, biases of the front end uniform within ``1 / sqrt(fan in)``, other biases zero,
    normalisations one and zero.
    """

    domains: ClassVar[tuple[str, ...]] = ("speech",)

    dim: int = option(96, "width of a vector between modules", ge=2)
    layers: int = option(4, "blocks", ge=1)
    heads: int = option(4, "attention heads", ge=1)
    feed_forward: int = option(384, "inner width of the feed-forward modules", ge=1)
    kernel: int = option(15, "width of the depthwise convolution in steps of four frames; odd", ge=1)
    subsampling_channels: int = option(32, "channels of the two convolutions in front", ge=1)
    dropout: float = option(0.1, "probability of dropping a value at the end of a module and inside it", ge=0, lt=1)
    native_dropout: bool = option(False, "the framework's own dropout: faster, but other masks on each backend")
    max_positions: int = option(4096, "longest input in steps of four frames (40 ms at a hop of 10 ms)", ge=1)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.dim % 2:
            yield "dim", f"found {self.dim}, expected an even number"
        if self.dim % self.heads:
            yield "dim", f"found {self.dim}, expected a multiple of heads ({self.heads})"
        if self.kernel % 2 == 0:
            yield "kernel", f"found {self.kernel}, expected an odd number"

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
        made = under("subsample", layers.subsample(inputs, self.subsampling_channels, self.dim))
        for number in range(self.layers):
            made |= under(f"blocks.{number}", self._block())
        return made | under("head", layers.dense(self.dim, outputs))

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
