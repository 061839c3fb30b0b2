"""Vision Transformer, in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.layers import spec as shared
from toolkit.layers.attention import torch as attention
from toolkit.layers.basic.torch import FeedForward, Head
from toolkit.layers.dropout.torch import Dropout
from toolkit.models.vit import spec as vit


class Attention(attention.Attention):
    """Normalization and multi-head self-attention (appendix A of the paper)."""

    def __init__(self, spec: vit.ViT) -> None:
        super().__init__(spec.dim, spec.heads)
        self.norm = nn.LayerNorm(spec.dim, eps=shared.NORM_EPSILON)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, patches, dim)`` to the same shape."""
        x = self.norm(x)
        return self.dropout(self.attend(x, self.keys(x)))


class Block(nn.Module):
    """Attention and a feed-forward network (equations 2 and 3 of the paper)."""

    def __init__(self, spec: vit.ViT) -> None:
        super().__init__()
        self.attention = Attention(spec)
        self.feed_forward = FeedForward(spec.dim, spec.feed_forward, F.gelu, spec.dropout, spec.native_dropout)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the sum after each module, in order; the last is the output of the block."""
        attention = x + self.attention(x)
        return {"attention": attention, "feed_forward": attention + self.feed_forward(attention)}


class ViT(nn.Module):
    """See :class:`toolkit.models.vit.spec.ViT`.

    Args:
        spec: the neutral description.
        inputs: height, width and channels of an image.
        outputs: number of classes.
    """

    def __init__(self, spec: vit.ViT, inputs: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.patch = spec.patch
        shapes = {name: parameter.shape for name, parameter in spec.parameters(inputs, outputs).items()}
        self.embed = nn.Linear(shapes["embed.weight"][1], spec.dim)
        self.class_token = nn.Parameter(torch.zeros(spec.dim)) if spec.pool == "token" else None
        self.positions = nn.Parameter(torch.zeros(shapes["positions"]))
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.dim, eps=shared.NORM_EPSILON)
        self.head = Head(spec.dim, outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logits of a batch.

        Args:
            images: ``(batch, channels, height, width)``.

        Returns:
            ``(batch, outputs)`` logits, and the intermediates by name, in order; images as ``(batch, height, width,
            channels)``.
        """
        images = images.permute(0, 2, 3, 1)
        x = self.embed(self._patches(images))
        intermediates = {"images": images, "embed": x}
        if self.class_token is not None:
            x = torch.cat([self.class_token.to(x.dtype).expand(len(x), 1, -1), x], 1)
        x = self.dropout(x + self.positions)
        for number, block in enumerate(self.blocks):
            outputs = block(x)
            x = outputs["feed_forward"]
            intermediates |= {f"blocks.{number}.{name}": value for name, value in outputs.items()}
        x = self.norm(x)
        with torch.autocast(x.device.type, enabled=False):
            pooled = x.mean(1) if self.class_token is None else x[:, 0]
        logits = self.head(pooled)
        return logits, intermediates | {"norm": x, "logits": logits}

    def _patches(self, images: Tensor) -> Tensor:
        """Cut ``(batch, height, width, channels)`` into ``(batch, patches, patch * patch * channels)``, row by row."""
        split = images.unflatten(2, (-1, self.patch)).unflatten(1, (-1, self.patch))
        return split.transpose(2, 3).flatten(3).flatten(1, 2)
