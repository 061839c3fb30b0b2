"""PyTorch twin of the tokenizer ``wordpiece``."""

from __future__ import annotations

from toolkit.tokenizers.torch import Tokenizer


class WordPiece(Tokenizer):
    """A module that converts texts to padded ids and back."""
