"""The PyTorch twin."""

from __future__ import annotations

from toolkit.tokenizers.torch import Tokenizer


class Labels(Tokenizer):
    """Names of classes to padded ids and back; a name that is not among the classes has no id."""
