"""The TensorFlow twin."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_text

from toolkit.tokenizers.tf import Tokenizer

from .spec import Characters as Spec
from .spec import CharacterTokenizer


class Characters(Tokenizer):
    """Texts to ragged ids and back, in the graph.

    Args:
        spec: the tokenizer's spec.
        tokenizer: what ``spec.load`` gave.
    """

    def __init__(self, spec: Spec, tokenizer: CharacterTokenizer, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        pairs = tf.lookup.KeyValueTensorInitializer(
            tf.constant(tokenizer.alphabet, tf.string), tf.range(1, tokenizer.size)
        )
        self.table = tf.lookup.StaticHashTable(pairs, default_value=0)
        self.characters = tf.constant(["", *tokenizer.alphabet], tf.string)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """``(batch,)`` strings to ragged int32 ids; a character that the alphabet lacks is left out."""
        characters = tf.strings.unicode_split(tensorflow_text.normalize_utf8(texts, "NFC"), "UTF-8")
        ids = tf.ragged.map_flat_values(self.table.lookup, characters)
        return tf.ragged.boolean_mask(ids, ids > 0)

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Ragged ids to ``(batch,)`` strings; blanks give nothing."""
        return tf.strings.reduce_join(tf.gather(self.characters, ids), axis=-1)
