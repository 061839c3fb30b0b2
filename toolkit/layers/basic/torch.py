"""Basic layers in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.layers import spec as shared
from toolkit.layers.dropout.torch import Dropout


def conv2d(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """Build a convolution with an odd, square kernel and equal padding on all sides."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)


class Head(nn.Linear):
    """A linear layer whose logits have the precision of its weights, also under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class FeedForward(nn.Module):
    """Normalization, expansion, activation, projection; dropout after the last two.

    Args:
        dim: width of the vectors.
        inner: width between expansion and projection.
        activation: applied to each value between expansion and projection.
        dropout, native: see :class:`Dropout`.
    """

    def __init__(
        self, dim: int, inner: int, activation: Callable[[Tensor], Tensor], dropout: float, native: bool
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm = nn.LayerNorm(dim, eps=shared.NORM_EPSILON)
        self.linear1 = nn.Linear(dim, inner)
        self.linear2 = nn.Linear(inner, dim)
        self.dropout1 = Dropout(dropout, native)
        self.dropout2 = Dropout(dropout, native)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, dim)`` to the same shape."""
        x = self.dropout1(self.activation(self.linear1(self.norm(x))))
        return self.dropout2(self.linear2(x))


class Subsample(nn.Module):
    """Two convolutions of stride 2 with ReLU, then a projection: a quarter of the frames (see ``spec.subsampled``)."""

    def __init__(self, inputs: int, channels: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, 2)
        self.conv2 = nn.Conv2d(channels, channels, 3, 2)
        self.out = nn.Linear(channels * shared.subsampled(inputs), outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, frames, inputs)`` to ``(batch, time, outputs)``."""
        x = F.relu(self.conv2(F.relu(self.conv1(x[:, None]))))
        return self.out(x.permute(0, 2, 3, 1).flatten(2))


def valid_frames(lengths: Tensor, longest: int) -> Tensor:
    """Return a ``(batch, longest)`` mask that is True for frames within the ``(batch,)`` lengths."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
