"""The PyTorch twin."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from toolkit.tokenizers.torch import decode, encode

from .spec import SentencePiece as Spec
from .spec import SentencePieceTokenizer


class SentencePiece(nn.Module):
    """Texts to padded ids and back.

    Args:
        spec: the tokenizer's spec.
        tokenizer: what ``spec.load`` gave.
    """

    def __init__(self, spec: Spec, tokenizer: SentencePieceTokenizer) -> None:
        super().__init__()
        self.spec = spec
        self.tokenizer = tokenizer

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns ``(batch, tokens)`` int64 ids, padded with 0, and ``(batch,)`` int64 lengths."""
        return encode(self.tokenizer, texts)

    def detokenize(self, ids: Tensor, lengths: Tensor) -> list[str]:
        """Texts of ``(batch, tokens)`` ids, of which ``lengths`` count."""
        return decode(self.tokenizer, ids, lengths)
