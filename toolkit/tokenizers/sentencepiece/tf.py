"""TensorFlow twin of the tokenizer ``sentencepiece``.

tensorflow-text bundles another SentencePiece. BPE gives the same ids; the unigram model breaks ties in runs of one
character (``-----``) in another order, so training uses the neutral tokenizer.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_text

from toolkit.tokenizers.tf import Tokenizer

from .spec import SentencePiece as Spec
from .spec import SentencePieceTokenizer


class SentencePiece(Tokenizer):
    """A layer that converts texts to ragged ids and back in the graph.

    Args:
        spec: the tokenizer's spec.
        tokenizer: returned by ``spec.load``.
    """

    def __init__(self, spec: Spec, tokenizer: SentencePieceTokenizer, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self.units = tensorflow_text.SentencepieceTokenizer(model=tokenizer.model, out_type=tf.int32)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Convert ``(batch,)`` strings to ragged int32 ids."""
        return self.units.tokenize(tensorflow_text.normalize_utf8(texts, "NFC"))

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Convert ragged ids to ``(batch,)`` strings; blanks are skipped."""
        return self.units.detokenize(ids)
