"""PyTorch twin of the tokenizer ``sentencepiece``."""

from __future__ import annotations

from toolkit.tokenizers.torch import Tokenizer


class SentencePiece(Tokenizer):
    """A module that converts texts to padded ids and back."""
