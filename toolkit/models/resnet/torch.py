"""Residual network, in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.layers.basic.torch import Head, conv2d
from toolkit.layers.normalization.torch import BatchNorm
from toolkit.models.resnet import spec as resnet


class ConvNorm(nn.Module):
    """A convolution and its batch norm."""

    def __init__(self, conv: resnet.Conv) -> None:
        super().__init__()
        self.conv = conv2d(*conv, bias=False)
        self.norm = BatchNorm(conv.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Block(nn.Module):
    """Two or three convolutions and a shortcut (figures 2 and 5 of the paper)."""

    def __init__(self, block: resnet.Block) -> None:
        super().__init__()
        self.block = block
        self.parts = len(block.convs)
        for number, conv in enumerate(block.convs, 1):
            self.add_module(f"conv{number}", conv2d(*conv, bias=False))
            self.add_module(f"norm{number}", BatchNorm(conv.outputs))
        self.projection = ConvNorm(block.projection) if block.projection else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, inputs, height, width)`` to ``(batch, outputs, height, width)``, divided by the stride."""
        y = x
        for number in range(1, self.parts + 1):
            y = self.get_submodule(f"norm{number}")(self.get_submodule(f"conv{number}")(y))
            if number < self.parts:
                F.relu_(y)  # in place here and below: no gradient needs the output of a normalization
        return F.relu_(y.add_(self._shortcut(x)))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.projection is not None:
            return self.projection(x)
        more, stride = self.block.outputs - self.block.inputs, self.block.stride
        return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, more)) if more or stride > 1 else x


class ResNet(nn.Module):
    """See :class:`toolkit.models.resnet.spec.ResNet`.

    Args:
        spec: the neutral description.
        inputs: height, width and channels of an image.
        outputs: number of classes.
    """

    def __init__(self, spec: resnet.ResNet, inputs: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.pool = spec.stem == "imagenet"
        self.stem = ConvNorm(spec.stem_conv(inputs[2]))
        self.blocks = nn.ModuleList(Block(block) for block in spec.blocks())
        self.head = Head(spec.blocks()[-1].outputs, outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logits of a batch.

        Args:
            images: ``(batch, channels, height, width)``, channels last in memory.

        Returns:
            ``(batch, outputs)`` logits, and the intermediates by name, in order; images as ``(batch, height, width,
            channels)``.
        """
        x = F.relu_(self.stem(images))
        if self.pool:
            x = F.max_pool2d(x, 3, 2, 1)
        intermediates = {"images": images.permute(0, 2, 3, 1), "stem": x.permute(0, 2, 3, 1)}
        for number, block in enumerate(self.blocks):
            x = block(x)
            intermediates[f"blocks.{number}"] = x.permute(0, 2, 3, 1)
        with torch.autocast(x.device.type, enabled=False):
            pooled = x.to(self.head.weight.dtype).mean((2, 3))
        logits = self.head(pooled)
        return logits, intermediates | {"pooled": pooled, "logits": logits}
