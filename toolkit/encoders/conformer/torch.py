"""Conformer encoder in PyTorch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.encoders.conformer import spec as conformer
from toolkit.layers import spec as shared
from toolkit.layers.basic.torch import FeedForward, Subsample, valid_frames
from toolkit.layers.dropout.torch import Dropout
from toolkit.layers.normalization.torch import BatchNorm


class Attention(nn.Module):
    """Multi-head self-attention over relative positions (figure 3 of the paper)."""

    def __init__(self, spec: conformer.Conformer) -> None:
        super().__init__()
        self.heads = spec.heads
        self.size = spec.dim // spec.heads
        self.norm = nn.LayerNorm(spec.dim, eps=shared.NORM_EPSILON)
        self.query = nn.Linear(spec.dim, spec.dim)
        self.key = nn.Linear(spec.dim, spec.dim, bias=False)
        self.value = nn.Linear(spec.dim, spec.dim)
        self.position = nn.Linear(spec.dim, spec.dim, bias=False)
        self.out = nn.Linear(spec.dim, spec.dim)
        self.position_bias_u = nn.Parameter(torch.zeros(spec.heads, self.size))
        self.position_bias_v = nn.Parameter(torch.zeros(spec.heads, self.size))
        self.dropout = Dropout(spec.dropout, spec.native_dropout)

    def forward(self, x: Tensor, positions: Tensor, masking: Tensor) -> Tensor:
        """Attend from every step to every step.

        Args:
            x: ``(batch, time, dim)``.
            positions: ``(2 time, dim)``.
            masking: ``(batch, 1, time)``, added to the scores: a large negative number for padding, else 0.

        Returns:
            ``(batch, time, dim)``.
        """
        batch, time, dim = x.shape
        split = (batch, time, self.heads, self.size)
        x = self.norm(x)
        query = self.query(x).view(split) / math.sqrt(self.size)
        by_content = (query + self.position_bias_u / math.sqrt(self.size)).permute(2, 0, 1, 3)
        by_position = (query + self.position_bias_v / math.sqrt(self.size)).permute(2, 0, 1, 3)
        key = self.key(x).view(split).permute(2, 0, 3, 1)
        value = self.value(x).view(split).permute(2, 0, 1, 3)
        position = self.position(positions).view(2 * time, self.heads, self.size).permute(1, 2, 0)
        by_position = by_position.reshape(self.heads, batch * time, self.size)  # no broadcast over the batch
        position_scores = _shift((by_position @ position).view(self.heads, batch, time, 2 * time))
        scores = by_content @ key + position_scores + masking
        mixed = torch.softmax(scores, -1) @ value
        return self.dropout(self.out(mixed.permute(1, 2, 0, 3).reshape(batch, time, dim)))


def _shift(scores: Tensor) -> Tensor:
    """Shift scores from relative to absolute positions (Dai et al. 2019, app. B): ``(.., t, 2 t)`` -> ``(.., t, t)``.

    Column ``c`` of row ``r`` holds the score at distance ``t - 1 - c``. Key ``k`` is at distance ``r - k``, hence in
    column ``t - 1 - r + k``: if the flat scores are cut into rows that are one shorter, every row starts at ``t - 1``.
    """
    time = scores.shape[-2]
    return scores.flatten(-2)[..., time - 1 : -1].unflatten(-1, (time, 2 * time - 1))[..., :time]


class Convolution(nn.Module):
    """Gated pointwise convolution, depthwise convolution, batch norm, SiLU, pointwise convolution (figure 2)."""

    def __init__(self, spec: conformer.Conformer) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(spec.dim, eps=shared.NORM_EPSILON)
        self.pointwise1 = nn.Linear(spec.dim, 2 * spec.dim)
        self.depthwise = nn.Conv1d(
            spec.dim, spec.dim, spec.kernel, padding=spec.kernel // 2, groups=spec.dim, bias=False
        )
        self.batch_norm = BatchNorm(spec.dim)
        self.pointwise2 = nn.Linear(spec.dim, spec.dim)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map ``(batch, time, dim)`` and a ``(batch, time)`` mask to ``(batch, time, dim)``."""
        x = F.glu(self.pointwise1(self.norm(x)), -1)
        x = x * valid[..., None].to(x.dtype)  # zeros follow an utterance, as they would without a batch
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.pointwise2(F.silu(self.batch_norm(x, valid))))


class Block(nn.Module):
    """One Conformer block (equation 1 of the paper)."""

    def __init__(self, spec: conformer.Conformer) -> None:
        super().__init__()
        arguments = (spec.dim, spec.feed_forward, F.silu, spec.dropout, spec.native_dropout)
        self.feed_forward1 = FeedForward(*arguments)
        self.attention = Attention(spec)
        self.convolution = Convolution(spec)
        self.feed_forward2 = FeedForward(*arguments)
        self.norm = nn.LayerNorm(spec.dim, eps=shared.NORM_EPSILON)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor, masking: Tensor) -> dict[str, Tensor]:
        """Return the output of every module, in order; the last is that of the block."""
        feed_forward1 = x + 0.5 * self.feed_forward1(x)
        attention = feed_forward1 + self.attention(feed_forward1, positions, masking)
        convolution = attention + self.convolution(attention, valid)
        feed_forward2 = convolution + 0.5 * self.feed_forward2(convolution)
        return {
            "feed_forward1": feed_forward1,
            "attention": attention,
            "convolution": convolution,
            "feed_forward2": feed_forward2,
            "norm": self.norm(feed_forward2),
        }


class Positions(nn.Module):
    """Embeddings of relative positions: a fixed table of sinusoids."""

    table: Tensor

    def __init__(self, spec: conformer.Conformer) -> None:
        super().__init__()
        self.longest = spec.max_positions
        self.register_buffer("table", torch.from_numpy(shared.positions(self.longest, spec.dim)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(2 time, dim)`` embeddings for an input ``(batch, time, dim)``.

        Raises:
            ValueError: the input is longer than ``max_positions``.
        """
        time = x.shape[1]
        if time > self.longest:
            raise ValueError(f"the input has {time} steps, more than model.max_positions ({self.longest})")
        return self.table[self.longest - time : self.longest + time]


class Conformer(nn.Module):
    """See :class:`toolkit.encoders.conformer.spec.Conformer`.

    Args:
        spec: the neutral description.
        inputs: size of a frame of features.
    """

    def __init__(self, spec: conformer.Conformer, inputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.subsample = Subsample(inputs, spec.subsampling_channels, spec.dim)
        self.positions = Positions(spec)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Encode a batch.

        Args:
            features: ``(batch, frames, inputs)``.
            lengths: ``(batch,)`` frames.

        Returns:
            ``(batch, time, dim)``, ``(batch,)`` lengths in steps, and the intermediates by name, in order.

        Raises:
            ValueError: the input is longer than ``max_positions``.
        """
        x = self.subsample(features)
        lengths = self.spec.output_length(lengths)
        intermediates = {"features": features, "subsample": x}
        positions = self.positions(x)
        valid = valid_frames(lengths, x.shape[1])
        masking = (~valid[:, None]).to(x.dtype) * shared.MASKED_SCORE
        x = self.dropout(x)
        for number, block in enumerate(self.blocks):
            outputs = block(x, positions, valid, masking)
            x = outputs["norm"]
            intermediates |= {f"blocks.{number}.{name}": value for name, value in outputs.items()}
        return x, lengths, intermediates
