"""Residual network."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import ClassVar, Literal, NamedTuple

from toolkit.config.spec import option, spec
from toolkit.layers import spec as layers
from toolkit.layers.parameters import Constant, Parameter
from toolkit.layers.spec import Parameters, under
from toolkit.models.spec import Model

EXPANSION = {"basic": 1, "bottleneck": 4}  # ratio of output channels to inner channels of a block
# table 1 of the paper: depth -> blocks in each of four stages
DEEP = {
    "basic": {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    "bottleneck": {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)},
}


class Conv(NamedTuple):
    """A convolution without bias, before a normalization."""

    inputs: int
    outputs: int
    kernel: int
    stride: int


class Block(NamedTuple):
    """The convolutions of a block and of its shortcut (None: identity or padding)."""

    convs: tuple[Conv, ...]
    projection: Conv | None

    @property
    def inputs(self) -> int:
        return self.convs[0].inputs

    @property
    def outputs(self) -> int:
        return self.convs[-1].outputs

    @property
    def stride(self) -> int:
        return max(conv.stride for conv in self.convs)


@spec
class ResNet(Model):
    """He et al. 2015, "Deep Residual Learning for Image Recognition".

    Each block adds the output of its convolutions, each with a batch norm, to its input. Every stage but the first
    starts with a stride of 2 and twice the channels. The mean over all pixels goes through a linear layer.

    With 3 stages (section 4.2 of the paper, for CIFAR) the depth is 6 n + 2 with n blocks of two convolutions per
    stage: 20, 32, 44, 56, with 16 channels in the first stage; shortcuts that change the size take every second pixel
    and pad the channels with zeros. With 4 stages (table 1, for ImageNet) the depth is 18 or 34, and with bottlenecks
    50, 101 or 152; the first stage has 64 channels, and shortcuts that change the size are projections. A bottleneck
    has its stride in the 3 x 3 convolution, as "ResNet-50 v1.5" and torchvision have, not in the first as in the paper.

    Initialization: convolutions He uniform, the matrix Glorot uniform, biases zero, normalizations one and zero.
    """

    input: ClassVar[str] = "image"
    output: ClassVar[str] = "classes"

    depth: int = option(20, "number of layers with weights; possible values depend on stages and block", ge=8)
    stages: Literal[3, 4] = option(3, "3: the paper's networks for CIFAR; 4: those for ImageNet")
    block: Literal["basic", "bottleneck"] = option(
        "basic", "two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1 with four times the channels at the end"
    )
    width: int = option(16, "inner channels of the blocks in the first stage; 16 and 64 in the paper", ge=1)
    stem: Literal["cifar", "imagenet"] = option(
        "cifar",
        "first convolution: 3 x 3, or 7 x 7 with stride 2 and pooling (a quarter of height and width)",
    )
    shortcut: Literal["padding", "projection"] = option(
        "padding", "shortcuts that change the size: option A (no parameters) or B (1 x 1 convolution) of the paper"
    )
    zero_init: bool = option(
        False,
        "initialize the last scale of each block to 0, so that blocks start as identities (Goyal et al. 2017, 5.1)",
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if units(self.depth, self.stages, self.block) is None:
            elsewhere = [
                f"stages={stages} with block={block}"
                for stages, block in product((3, 4), EXPANSION)
                if units(self.depth, stages, block) is not None
            ]
            hint = f"; {self.depth} needs {' or '.join(elsewhere)}" if elsewhere else ""
            here = f"with stages={self.stages} and block={self.block}"
            yield "depth", f"found {self.depth}, expected {expected(self.stages, self.block)} {here}{hint}"

    def blocks(self) -> list[Block]:
        """List all blocks, in order."""
        blocks: list[Block] = []
        before, expansion = self.width, EXPANSION[self.block]
        for stage, count in enumerate(units(self.depth, self.stages, self.block) or ()):
            inner = self.width * 2**stage
            for number in range(count):
                stride = 2 if stage and not number else 1
                changes = stride > 1 or before != inner * expansion
                projected = changes and self.shortcut == "projection"
                projection = Conv(before, inner * expansion, 1, stride) if projected else None
                blocks.append(Block(self._convs(before, inner, stride), projection))
                before = inner * expansion
        return blocks

    def _convs(self, before: int, inner: int, stride: int) -> tuple[Conv, ...]:
        if self.block == "basic":
            return Conv(before, inner, 3, stride), Conv(inner, inner, 3, 1)
        return Conv(before, inner, 1, 1), Conv(inner, inner, 3, stride), Conv(inner, 4 * inner, 1, 1)

    def stem_conv(self, channels: int) -> Conv:
        """Return the first convolution, for images with ``channels``."""
        kernel, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        return Conv(channels, self.width, kernel, stride)

    def parameters(self, inputs: tuple[int, int, int], outputs: int) -> Parameters:
        """List the parameters of both twins by canonical name.

        Args:
            inputs: height, width and channels of an image.
            outputs: number of classes.
        """
        parameters = under("stem", _conv_norm(self.stem_conv(inputs[2])))
        for number, block in enumerate(self.blocks()):
            parameters |= under(f"blocks.{number}", self._block(block))
        return parameters | under("head", layers.dense(self.blocks()[-1].outputs, outputs))

    def _block(self, block: Block) -> Parameters:
        parameters: Parameters = {}
        for number, conv in enumerate(block.convs, 1):
            parameters |= {name.replace(".", f"{number}.", 1): value for name, value in _conv_norm(conv).items()}
        if self.zero_init:
            parameters[f"norm{len(block.convs)}.weight"] = Parameter((block.outputs,), Constant(0.0))
        return parameters | (under("projection", _conv_norm(block.projection)) if block.projection else {})


def units(depth: int, stages: int, block: str) -> tuple[int, ...] | None:
    """Return the number of blocks in each stage, or None if there is no such network."""
    if stages == 4:
        return DEEP[block].get(depth)
    period = 9 if block == "bottleneck" else 6
    count, rest = divmod(depth - 2, period)
    return None if rest or count < 1 else (count,) * 3


def expected(stages: int, block: str) -> str:
    """Describe the possible depths."""
    if stages == 4:
        return " or ".join(map(str, DEEP[block]))
    return "9 n + 2 (11, 20, 29, ...)" if block == "bottleneck" else "6 n + 2 (8, 14, 20, 26, 32, 38, 44, 50, 56, ...)"


def _conv_norm(conv: Conv) -> Parameters:
    kernel = layers.conv2d(conv.inputs, conv.outputs, conv.kernel, bias=False)
    return under("conv", kernel) | under("norm", layers.batch_norm(conv.outputs))
