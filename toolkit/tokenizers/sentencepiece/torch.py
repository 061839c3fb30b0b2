"""The PyTorch twin."""

from __future__ import annotations

from toolkit.tokenizers.torch import Tokenizer


class SentencePiece(Tokenizer):
    """Texts to padded ids and back."""
