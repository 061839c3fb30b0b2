"""The PyTorch twin."""

from __future__ import annotations

from toolkit.tokenizers.torch import Tokenizer


class WordPiece(Tokenizer):
    """Texts to padded ids and back."""
