"""What the TensorFlow twins of the tokenizers share: strings in and out of the graph, as serving and export need it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class Tokenizer(keras.layers.Layer):
    """Texts to ragged ids and back, in the graph, by a twin's ``tokenize`` and ``detokenize``.

    Args:
        spec: the tokenizer's spec.
    """

    def __init__(self, spec: Any, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.spec = spec

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """``(batch,)`` strings to ragged int32 ids."""
        raise NotImplementedError

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Ragged ids to ``(batch,)`` strings; blanks give nothing."""
        raise NotImplementedError

    def call(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self.tokenize(texts)
