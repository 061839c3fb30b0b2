"""A small convolutional network, in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.layers.basic.torch import Head, conv2d
from toolkit.layers.dropout.torch import Dropout
from toolkit.layers.normalization.torch import BatchNorm
from toolkit.models.cnn import spec as cnn


class Block(nn.Module):
    """Convolution, normalization, pooling, ReLU."""

    def __init__(self, spec: cnn.CNN, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv2d(inputs, outputs, spec.kernel, bias=not spec.batch_norm)
        self.batch_norm = BatchNorm(outputs) if spec.batch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, inputs, height, width)`` to ``(batch, outputs, height // 2, width // 2)``."""
        x = self.conv(x)
        if self.batch_norm is not None:
            x = self.batch_norm(x)
        return F.relu(F.max_pool2d(x, 2))


class CNN(nn.Module):
    """See :class:`toolkit.models.cnn.spec.CNN`.

    Args:
        spec: the neutral description.
        inputs: height, width and channels of an image.
        outputs: number of classes.
    """

    def __init__(self, spec: cnn.CNN, inputs: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        height, width, channels = inputs
        self.blocks = nn.ModuleList(Block(spec, *widths) for widths in spec.widths(channels))
        self.dropout1 = Dropout(spec.dropout, spec.native_dropout)
        self.hidden = nn.Linear(spec.flat(height, width), spec.hidden)
        self.dropout2 = Dropout(spec.dropout, spec.native_dropout)
        self.head = Head(spec.hidden, outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logits of a batch.

        Args:
            images: ``(batch, channels, height, width)``, channels last in memory.

        Returns:
            ``(batch, outputs)`` logits, and the intermediates by name, in order; images as ``(batch, height, width,
            channels)``.
        """
        intermediates, x = {"images": images.permute(0, 2, 3, 1)}, images
        for number, block in enumerate(self.blocks):
            x = block(x)
            intermediates[f"blocks.{number}"] = x.permute(0, 2, 3, 1)
        x = F.relu(self.hidden(self.dropout1(x.permute(0, 2, 3, 1).flatten(1))))
        logits = self.head(self.dropout2(x))
        return logits, intermediates | {"hidden": x, "logits": logits}
