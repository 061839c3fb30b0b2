"""PyTorch twin of the tokenizer ``characters``."""

from __future__ import annotations

from toolkit.tokenizers.torch import Tokenizer


class Characters(Tokenizer):
    """A module that converts texts to padded ids and back."""
