"""Attention in PyTorch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.layers.dropout.torch import Dropout

KeyValue = tuple[Tensor, Tensor]  # keys and values, each (batch, heads, time, dim / heads)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

    A model subclasses this to add what its attention also has, such as a normalization and dropout.

    Args:
        dim: width of the vectors, a multiple of ``heads``.
        heads: each of ``dim / heads`` values.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def keys(self, x: Tensor) -> KeyValue:
        """Compute keys and values of ``(batch, time, dim)``."""
        return self._split(self.key(x)), self._split(self.value(x))

    def attend(
        self, x: Tensor, keys: KeyValue, masking: Tensor | None = None, dropout: Dropout | None = None
    ) -> Tensor:
        """Attend from ``x`` to ``keys``.

        Args:
            x: ``(batch, queries, dim)``.
            keys: result of :meth:`keys`.
            masking: added to the scores ``(batch, heads, queries, time)``: 0, or a large negative number to hide a key.
            dropout: applied to the attention weights.

        Returns:
            ``(batch, queries, dim)``.
        """
        query, (key, value) = self._split(self.query(x)), keys
        if masking is not None:
            masking = masking.to(query.dtype)
        if dropout is not None and dropout.rate and self.training:
            scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-1, -2)
            weights = torch.softmax(scores if masking is None else scores + masking, -1)
            mixed = dropout(weights).to(value.dtype) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, masking)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
