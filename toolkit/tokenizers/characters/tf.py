"""TensorFlow twin of the tokenizer ``characters``."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_text

from toolkit.tokenizers.tf import Tokenizer

from .spec import Characters as Spec
from .spec import CharacterTokenizer


class Characters(Tokenizer):
    """A layer that converts texts to ragged ids and back in the graph.

    Args:
        spec: the tokenizer's spec.
        tokenizer: returned by ``spec.load``.
    """

    def __init__(self, spec: Spec, tokenizer: CharacterTokenizer, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        pairs = tf.lookup.KeyValueTensorInitializer(
            tf.constant(tokenizer.alphabet, tf.string), tf.range(1, tokenizer.size)
        )
        self.table = tf.lookup.StaticHashTable(pairs, default_value=0)
        self.characters = tf.constant(["", *tokenizer.alphabet], tf.string)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Convert ``(batch,)`` strings to ragged int32 ids; characters outside the alphabet are skipped."""
        characters = tf.strings.unicode_split(tensorflow_text.normalize_utf8(texts, "NFC"), "UTF-8")
        ids = tf.ragged.map_flat_values(self.table.lookup, characters)
        return tf.ragged.boolean_mask(ids, ids > 0)

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Convert ragged ids to ``(batch,)`` strings; blanks are skipped."""
        return tf.strings.reduce_join(tf.gather(self.characters, ids), axis=-1)
