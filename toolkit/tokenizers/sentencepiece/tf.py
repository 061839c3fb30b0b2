"""The TensorFlow twin.

tensorflow-text brings a SentencePiece of its own. BPE gives the same ids; the unigram model breaks ties in runs of one
character (``-----``) in another order, which is why training uses the shared tokenizer.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_text

from toolkit.tokenizers.tf import Tokenizer

from .spec import SentencePiece as Spec
from .spec import SentencePieceTokenizer


class SentencePiece(Tokenizer):
    """Texts to ragged ids and back, in the graph.

    Args:
        spec: the tokenizer's spec.
        tokenizer: what ``spec.load`` gave.
    """

    def __init__(self, spec: Spec, tokenizer: SentencePieceTokenizer, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self.units = tensorflow_text.SentencepieceTokenizer(model=tokenizer.model, out_type=tf.int32)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """``(batch,)`` strings to ragged int32 ids."""
        return self.units.tokenize(tensorflow_text.normalize_utf8(texts, "NFC"))

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Ragged ids to ``(batch,)`` strings; blanks give nothing."""
        return self.units.detokenize(ids)
