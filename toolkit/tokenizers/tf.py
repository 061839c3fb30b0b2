"""Base class of the TensorFlow twins of the tokenizers: strings in and out of the graph, for serving and export."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class Tokenizer(keras.layers.Layer):
    """A layer that converts texts to ragged ids and back in the graph; twins define ``tokenize`` and ``detokenize``.

    Args:
        spec: the tokenizer's spec.
    """

    def __init__(self, spec: Any, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.spec = spec

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Convert ``(batch,)`` strings to ragged int32 ids."""
        raise NotImplementedError

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Convert ragged ids to ``(batch,)`` strings; blanks are skipped."""
        raise NotImplementedError

    def call(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self.tokenize(texts)
