"""TensorFlow twin of the tokenizer ``wordpiece``: the steps of the spec in the graph.

tensorflow-text's BERT tokenizer folds and splits text differently (``ß`` to ``ss``, full-width forms, control
characters), so only its matching of pieces is used, on text that is already split. With ``lowercase``, 40 capital
letters that are new in Unicode 14 (U+2C2F, U+A7C0, U+A7D0, U+A7D6, U+A7D8, U+10570 to U+10595) stay upper case and thus
unknown, since TensorFlow's tables are older than Python's.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_text

from toolkit.tokenizers.tf import Tokenizer

from .spec import BLANK, REPLACEMENT, SPACE, SPECIAL, STAND_IN, UNKNOWN, WordPieceTokenizer, known
from .spec import WordPiece as Spec


class WordPiece(Tokenizer):
    """A layer that converts texts to ragged ids and back in the graph.

    Args:
        spec: the tokenizer's spec.
        tokenizer: returned by ``spec.load``.
    """

    def __init__(self, spec: Spec, tokenizer: WordPieceTokenizer, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self.lowercase = tokenizer.lowercase
        self.known = known(_escape(tokenizer.letters), _escape(tokenizer.symbols))
        self.matcher = tensorflow_text.FastWordpieceTokenizer(
            vocab=tokenizer.pieces,
            suffix_indicator="",
            max_bytes_per_word=(1 << 31) - 1,
            token_out_type=tf.int32,
            unknown_token=SPECIAL[UNKNOWN],
            no_pretokenization=True,
        )
        surfaces = list(tokenizer.pieces)
        surfaces[BLANK], surfaces[UNKNOWN] = "", REPLACEMENT
        self.surfaces = tf.constant(surfaces, tf.string)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Convert ``(batch,)`` strings to ragged int32 ids."""
        if self.lowercase:
            texts = tf.strings.lower(tf.strings.regex_replace(texts, r"\x00", STAND_IN), "utf-8")
        texts = tensorflow_text.normalize_utf8(texts, "NFC")
        texts = tf.strings.regex_replace(texts, rf"[ {SPACE}]+\z", "")
        texts = tf.strings.regex_replace(texts, rf"[ {SPACE}]*([^ {SPACE}]+)", rf"{SPACE}\1")
        # not regex_split, whose strings end at a NUL
        parts = tf.strings.split(tf.strings.regex_replace(texts, self.known, r" \1 "), " ")
        parts = tf.ragged.boolean_mask(parts, parts != "")
        return self.matcher.tokenize(parts).merge_dims(1, 2)

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Convert ragged ids to ``(batch,)`` strings; blanks are skipped."""
        texts = tf.strings.reduce_join(tf.gather(self.surfaces, ids), axis=-1)
        return tf.strings.regex_replace(tf.strings.regex_replace(texts, SPACE, " "), r"\A ", "")


def _escape(characters: str) -> str:
    """Escape characters for the brackets of an RE2 expression."""
    return "".join(f"\\x{{{ord(c):x}}}" for c in characters)
