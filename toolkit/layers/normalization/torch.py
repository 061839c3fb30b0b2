"""Normalization in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.layers import spec as shared
from toolkit.layers.devices.torch import total


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015); for sequences over the valid frames, so padding never counts.

    As ``torch.nn.BatchNorm1d`` and ``2d``: biased variance of the batch, unbiased running variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.shared = False  # several devices share each batch
        self.present = True  # this device has rows of the batch

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalize ``x``.

        Args:
            x: sequences ``(batch, time, channels)``, or images ``(batch, channels, height, width)``.
            valid: ``(batch, time)``, True for frames that are not padding; None for images.
        """
        if valid is not None:
            return self._masked(x, valid)
        if x.numel() > x.shape[1] and not (self.shared and self.training):
            if self.training and x.dtype == torch.float32 and x.device.type == "cpu" and not x.is_contiguous():
                return self._precise(x)
            buffers, parameters = (self.running_mean, self.running_var), (self.weight, self.bias)
            momentum = shared.BATCH_NORM_MOMENTUM
            return F.batch_norm(x, *buffers, *parameters, self.training, momentum, shared.NORM_EPSILON)
        # PyTorch refuses a single value per channel (an epoch's last example), and sees only this device's rows
        x = x.movedim(1, -1)
        return self._masked(x, torch.ones_like(x[..., 0], dtype=torch.bool)).movedim(-1, 1)

    def _precise(self, x: Tensor) -> Tensor:
        y, mean, variance = _Normalized.apply(x, self.weight, self.bias)
        count = x.numel() // x.shape[1]
        self._run(mean, variance * (count / (count - 1)))
        return y

    def _masked(self, x: Tensor, valid: Tensor) -> Tensor:
        axes = tuple(range(x.ndim - 1))
        dtype = x.dtype
        x = x.to(self.weight.dtype)  # statistics of bfloat16 activations need float32
        if self.training:
            weight = valid[..., None].to(x.dtype) * self.present if self.shared else valid[..., None].to(x.dtype)
            add = total if self.shared else _itself
            count = add(weight.sum()).clamp(min=1.0)
            mean = add((x * weight).sum(axes)) / count
            x = x - mean
            variance = add((x.square() * weight).sum(axes)) / count
            self._run(mean, variance * (count / (count - 1.0).clamp(min=1.0)))
        else:
            x, variance = x - self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + shared.NORM_EPSILON)
        return (x * scale + self.bias).to(dtype)

    @torch.no_grad()
    def _run(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running statistics towards the batch's."""
        self.running_mean.lerp_(mean, shared.BATCH_NORM_MOMENTUM)
        self.running_var.lerp_(unbiased, shared.BATCH_NORM_MOMENTUM)


def _itself(x: Tensor) -> Tensor:
    return x


class _Normalized(torch.autograd.Function):
    """Batch normalization of channels-last images by the statistics of the batch.

    PyTorch's CPU kernel for this layout adds all pixels of a batch one after the other in float32: with 128 x 28 x 28
    pixels, mean, variance and gradient are 3e-4 off. The sums here are cascaded: 2e-7 off, at twice the time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = _pixels(x)
        mean = pixels.mean(0)
        variance = (pixels - mean).square_().mean(0)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + shared.NORM_EPSILON))
        ctx.mark_non_differentiable(mean, variance)
        # with given statistics the kernel computes no sums
        y = F.batch_norm(x, mean, variance, weight, bias, False, 0.0, shared.NORM_EPSILON)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, mean, scale = ctx.saved_tensors
        arriving = _pixels(upstream[0])
        normal = torch.addcmul(-mean * scale, _pixels(x), scale)
        to_bias, to_weight = arriving.sum(0), (arriving * normal).sum(0)
        slope, count = weight * scale, len(normal)
        to_x = normal.mul_(-to_weight / count * slope).addcmul_(arriving, slope).sub_(to_bias / count * slope)
        batch, _, height, width = x.shape
        return to_x.view(batch, height, width, -1).permute(0, 3, 1, 2), to_weight, to_bias


def _pixels(x: Tensor) -> Tensor:
    """Flatten ``(batch, channels, height, width)`` to ``(pixels, channels)``; a view if channels are last in memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
