"""Base class of the PyTorch twins of the tokenizers: torch has no strings, so they call the neutral tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence


class Neutral(Protocol):
    """The tokenizer that ``load`` of a spec returns."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Iterable[int]) -> str: ...


class Tokenizer(nn.Module):
    """A module that converts texts to padded ids and back.

    Args:
        spec: the tokenizer's spec.
        tokenizer: returned by ``spec.load``.
    """

    def __init__(self, spec: Any, tokenizer: Neutral) -> None:
        super().__init__()
        self.spec = spec
        self.tokenizer = tokenizer

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ``(batch, tokens)`` int64 ids, padded with 0, and ``(batch,)`` int64 lengths."""
        ids = [torch.tensor(self.tokenizer.encode(text), dtype=torch.int64) for text in texts]
        return pad_sequence(ids, batch_first=True), torch.tensor([len(row) for row in ids])

    def detokenize(self, ids: Tensor, lengths: Tensor) -> list[str]:
        """Decode ``(batch, tokens)`` ids with ``(batch,)`` lengths to texts."""
        return [self.tokenizer.decode(row[:n].tolist()) for row, n in zip(ids, lengths, strict=True)]
