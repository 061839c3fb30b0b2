"""The TensorFlow twin."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_text

from toolkit.tokenizers.tf import Tokenizer

from .spec import Labels as Spec
from .spec import LabelTokenizer


class Labels(Tokenizer):
    """Names of classes to ragged ids and back, in the graph.

    Args:
        spec: the tokenizer's spec.
        tokenizer: what ``spec.load`` gave.
    """

    def __init__(self, spec: Spec, tokenizer: LabelTokenizer, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self.classes = tf.constant(tokenizer.classes, tf.string)
        pairs = tf.lookup.KeyValueTensorInitializer(self.classes, tf.range(tokenizer.size))
        self.table = tf.lookup.StaticHashTable(pairs, default_value=-1)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """``(batch,)`` strings to ragged int32 ids, one a row; none for a name that is not among the classes."""
        ids = self.table.lookup(tensorflow_text.normalize_utf8(texts, "NFC"))[:, None]
        return tf.ragged.boolean_mask(ids, ids >= 0)

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Ragged ids to ``(batch,)`` strings."""
        return tf.strings.reduce_join(tf.gather(self.classes, ids), axis=-1, separator=", ")
