"""Image features in PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.features.image import spec as image


class Image(nn.Module):
    """See :class:`toolkit.features.image.spec.Image`.

    Args:
        spec: the neutral description.
        state: result of ``spec.load``.
    """

    like: Tensor

    def __init__(self, spec: image.Image, state: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.spec = spec
        for name, array in zip(("scale", "shift"), spec.scale_shift(state), strict=True):
            # float64 stored as integers: follows the module to a device, but not to another precision
            self.register_buffer(f"{name}_bits", torch.from_numpy(array).view(torch.int64), persistent=False)
        self.register_buffer("like", torch.empty(0), persistent=False)  # has the precision of the module

    def forward(
        self,
        images: Tensor,
        boxes: Tensor | None = None,
        flips: Tensor | None = None,
        erased: Tensor | None = None,
        partners: Tensor | None = None,
        shares: Tensor | None = None,
    ) -> Tensor:
        """Compute the pixels of a batch.

        Args:
            images: ``(batch, height, width, channels)`` uint8.
            boxes: ``(batch, 4)`` int, top, left, height and width of the crop in pixels; None = the whole image.
            flips: ``(batch,)`` bool; None = no flips.
            erased: ``(batch, 4)`` int, a box of the result, height 0 = none; None = no image is erased.
            partners: ``(batch,)`` int, the row of the image that is mixed in; None = no mixing.
            shares: ``(batch,)``, weight of the image itself, 1 = nothing is mixed in; None = no mixing.

        Returns:
            ``(batch, channels, height, width)`` with the channels last in memory.
        """
        spec, dtype = self.spec, self.like.dtype
        cropped = boxes is not None or flips is not None
        if boxes is None:
            boxes = images.new_tensor([0, 0, *images.shape[1:3]], dtype=torch.int32).expand(len(images), 4)
        if flips is None:
            flips = images.new_zeros(len(images), dtype=torch.bool)
        if spec.resizes:
            with torch.autocast(images.device.type, enabled=False):  # bfloat16 would spoil the pixels
                pixels = self._resampled(images, boxes, flips)
        else:
            pixels = (_copied(images, boxes, flips) if spec.moves and cropped else images).to(dtype)
        scale, shift = (self.get_buffer(f"{name}_bits").view(torch.float64).to(dtype) for name in ("scale", "shift"))
        pixels = pixels.mul_(scale).sub_(shift)
        if spec.erase.probability and erased is not None:
            pixels.masked_fill_(_covered(erased, pixels.shape[1], pixels.shape[2]), 0.0)
        if spec.mixup and partners is not None and shares is not None:
            share = shares.to(dtype)[:, None, None, None]
            pixels = share * pixels + (1 - share) * pixels[partners.long()]
        return pixels.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _resampled(self, images: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
        """Interpolate: a matrix product over columns, then one over rows."""
        batch, height, width, channels = images.shape
        out_height, out_width, _ = self.spec.shape(height, width, channels)
        dtype, unflipped = self.like.dtype, torch.zeros_like(flips)
        rows = _sampling(boxes[:, 0], boxes[:, 2], unflipped, out_height, height, dtype)
        columns = _sampling(boxes[:, 1], boxes[:, 3], flips, out_width, width, dtype)
        planes = images.permute(0, 3, 1, 2).contiguous().to(dtype)
        planes = (planes.view(batch, channels * height, width) @ columns.mT).view(batch, channels, height, out_width)
        return (rows[:, None] @ planes).permute(0, 2, 3, 1)


def _copied(images: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    """Copy boxes of the size of the images, black beyond the images."""
    batch, height, width, channels = images.shape
    row, column = (torch.arange(n, device=images.device) for n in (height, width))
    rows = (boxes[:, 0, None] + row).clamp(-1, height) + 1
    columns = (boxes[:, 1, None] + torch.where(flips[:, None], width - 1 - column, column)).clamp(-1, width) + 1
    framed = functional.pad(images, (0, 0, 1, 1, 1, 1))  # one black pixel around stands for everything beyond
    first = torch.arange(batch, device=images.device)[:, None] * (height + 2)
    places = (first + rows)[:, :, None] * (width + 2) + columns[:, None, :]
    return framed.view(-1, channels).index_select(0, places.flatten()).view(images.shape)


def _sampling(start: Tensor, extent: Tensor, flips: Tensor, size: int, length: int, dtype: torch.dtype) -> Tensor:
    """Compute ``spec.sampling`` for a batch: ``(batch,)`` boxes to ``(batch, size, length)``.

    Centres are split into a pixel and a fraction in integers, so that float32 loses nothing in large images. No box is
    larger than its image.
    """
    index = torch.arange(size, device=start.device)
    index = torch.where(flips[:, None], size - 1 - index, index)
    centre = (2 * index + 1) * extent[:, None] - size  # from the centre of the first pixel of the box, in 1 / (2 size)
    pixel = centre.div(2 * size, rounding_mode="floor")
    fraction = ((centre - pixel * 2 * size).to(dtype) / (2 * size))[..., None]
    support = (extent.to(dtype) / size).clamp(min=1)[:, None, None]

    reach = max(1, -(-length // size))
    taps = pixel[..., None] + torch.arange(-reach, reach + 2, device=start.device)
    in_box = (taps >= 0) & (taps < extent[:, None, None])
    total = (_triangle((taps - pixel[..., None]).to(dtype) - fraction, support) * in_box).sum(-1, keepdim=True)

    place = torch.arange(length, device=start.device)
    in_box = ((place >= start[:, None]) & (place < (start + extent)[:, None]))[:, None]
    away = place.to(dtype) - (start[:, None] + pixel).to(dtype)[..., None]
    return _triangle(away - fraction, support) * in_box / total


def _triangle(distance: Tensor, support: Tensor) -> Tensor:
    return (1 - distance.abs() / support).clamp(min=0)


def _covered(boxes: Tensor, height: int, width: int) -> Tensor:
    """Mark pixels within the box of their image: ``(batch, 4)`` -> ``(batch, height, width, 1)`` bool."""
    row, column = (torch.arange(n, device=boxes.device) for n in (height, width))
    top, left, rows, columns = (value[:, None] for value in boxes.unbind(1))
    in_rows, in_columns = (row >= top) & (row < top + rows), (column >= left) & (column < left + columns)
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]
