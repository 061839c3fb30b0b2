"""What the PyTorch twins of the tokenizers share: torch has no strings, so they call the neutral tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Tokenizer(Protocol):
    """What ``load`` of a tokenizer's spec returns."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Iterable[int]) -> str: ...


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Returns ``(batch, tokens)`` int64 ids, padded with 0, and ``(batch,)`` int64 lengths."""
    ids = [torch.tensor(tokenizer.encode(text), dtype=torch.int64) for text in texts]
    return pad_sequence(ids, batch_first=True), torch.tensor([len(i) for i in ids])


def decode(tokenizer: Tokenizer, ids: Tensor, lengths: Tensor) -> list[str]:
    """Texts of ``(batch, tokens)`` ids, of which ``lengths`` count."""
    return [tokenizer.decode(row[:n].tolist()) for row, n in zip(ids, lengths, strict=True)]
