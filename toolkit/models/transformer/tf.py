"""Transformer in TensorFlow."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from toolkit.layers import spec as shared
from toolkit.layers.attention import tf as attention
from toolkit.layers.attention.tf import KeyValue
from toolkit.layers.basic.tf import Embedding, dense, gelu, valid_frames
from toolkit.layers.dropout.tf import Dropout
from toolkit.layers.normalization.tf import LayerNorm
from toolkit.models.transformer import spec as transformer


class Attention(attention.Attention):
    """Multi-head attention whose weights are dropped (section 3.2 of the paper)."""

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__(spec.dim, spec.heads)
        self.dropout = Dropout(spec.attention_dropout, spec.native_dropout)

    def call(self, x: tf.Tensor, keys: KeyValue, masking: tf.Tensor | None, training: bool = False) -> tf.Tensor:
        """Attend from ``x`` to ``keys``, see :meth:`attend`."""
        return self.attend(x, keys, masking, lambda weights: self.dropout(weights, training=training))


class FeedForward(keras.layers.Layer):
    """Expansion, activation, projection (section 3.3 of the paper)."""

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__()
        self.activation = tf.nn.relu if spec.activation == "relu" else gelu
        self.linear1 = dense(spec.dim, spec.feed_forward)
        self.linear2 = dense(spec.feed_forward, spec.dim)
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Map ``(batch, time, dim)`` to the same shape."""
        return self.linear2(self.activation(self.linear1(x)))


class Residual(keras.layers.Layer):
    """The residual connection of a sub-layer: normalization before it or after the sum, dropout, the sum."""

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__()
        self.pre = spec.norm == "pre"
        self.norm = LayerNorm(spec.dim)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.built = True

    def before(self, x: tf.Tensor) -> tf.Tensor:
        """Return the input of the sub-layer."""
        return self.norm(x) if self.pre else x

    def after(self, x: tf.Tensor, y: tf.Tensor, training: bool) -> tf.Tensor:
        """Return the sum of ``x`` and the sub-layer's output ``y``."""
        x = x + self.dropout(y, training=training)
        return x if self.pre else self.norm(x)


class EncoderLayer(keras.layers.Layer):
    """Self-attention and a feed-forward network."""

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__()
        self.self_attention = Attention(spec)
        self.residual1 = Residual(spec)
        self.feed_forward = FeedForward(spec)
        self.residual2 = Residual(spec)
        self.built = True

    def call(self, x: tf.Tensor, masking: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Return the output of each sub-layer, in order; the last is that of the layer."""
        y = self.residual1.before(x)
        y = self.self_attention(y, self.self_attention.keys(y), masking, training=training)
        attention = self.residual1.after(x, y, training)
        y = self.feed_forward(self.residual2.before(attention))
        return {"self_attention": attention, "feed_forward": self.residual2.after(attention, y, training)}


class DecoderLayer(keras.layers.Layer):
    """Causal self-attention, attention to the source, a feed-forward network."""

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__()
        self.self_attention = Attention(spec)
        self.residual1 = Residual(spec)
        self.cross_attention = Attention(spec)
        self.residual2 = Residual(spec)
        self.feed_forward = FeedForward(spec)
        self.residual3 = Residual(spec)
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        source: KeyValue,
        masking: tf.Tensor,
        causal: tf.Tensor | None,
        past: KeyValue | None = None,
        training: bool = False,
    ) -> tuple[dict[str, tf.Tensor], KeyValue]:
        """Run one layer.

        Args:
            x: ``(rows, time, dim)``, one or several rows for each example of the source.
            source: keys and values of the source.
            masking: hides the padding of the source.
            causal: hides later positions.
            past: keys and values of the positions before ``x``.
            training: True applies dropout.

        Returns:
            the output of each sub-layer, in order, of which the last is that of the layer; and the keys and values
            so far.
        """
        y = self.residual1.before(x)
        keys = self.self_attention.keys(y)
        if past is not None:
            keys = tf.concat([past[0], keys[0]], 2), tf.concat([past[1], keys[1]], 2)
        attention = self.residual1.after(x, self.self_attention(y, keys, causal, training=training), training)
        # the rows of an example are its queries
        y = tf.reshape(self.residual2.before(attention), [tf.shape(source[0])[0], -1, x.shape[-1]])
        y = tf.reshape(self.cross_attention(y, source, masking, training=training), tf.shape(x))
        cross = self.residual2.after(attention, y, training)
        y = self.feed_forward(self.residual3.before(cross))
        feed_forward = self.residual3.after(cross, y, training)
        return {"self_attention": attention, "cross_attention": cross, "feed_forward": feed_forward}, keys


class Transformer(keras.Model):
    """See :class:`toolkit.models.transformer.spec.Transformer`.

    Args:
        spec: the neutral description.
        inputs: size of the source vocabulary.
        outputs: size of the target vocabulary.
    """

    def __init__(self, spec: transformer.Transformer, inputs: int, outputs: int) -> None:
        super().__init__(dtype=keras.config.floatx())  # for embeddings and logits; the layers have their own
        self.spec = spec
        if spec.share_embeddings:
            self.embedding = Embedding(inputs, spec.dim)
        else:
            self.source_embedding = Embedding(inputs, spec.dim)
            self.target_embedding = Embedding(outputs, spec.dim)
        self.source_dropout = Dropout(spec.dropout, spec.native_dropout)
        self.target_dropout = Dropout(spec.dropout, spec.native_dropout)
        self.encoder = [EncoderLayer(spec) for _ in range(spec.encoder_layers)]
        self.decoder = [DecoderLayer(spec) for _ in range(spec.decoder_layers)]
        if spec.norm == "pre":
            self.encoder_norm = LayerNorm(spec.dim)
            self.decoder_norm = LayerNorm(spec.dim)
        if not spec.tie_output:
            self.head = dense(spec.dim, outputs, bias=False, dtype=keras.config.floatx())
        self.table = tf.constant(shared.sinusoids(np.arange(spec.max_positions), spec.dim))
        self.built = True

    def call(
        self, source: tf.Tensor, source_lengths: tf.Tensor, previous: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Compute the logits of every next token of a batch.

        Args:
            source: ``(batch, source)`` tokens.
            source_lengths: ``(batch,)``.
            previous: ``(batch, time)`` tokens: the boundary, then the target.
            training: True applies dropout.

        Returns:
            ``(batch, time, outputs)`` logits, and the intermediates by name, in order.

        Raises:
            tf.errors.InvalidArgumentError: source or target is longer than ``max_positions``.
        """
        memory, masking, intermediates = self._encode(source, source_lengths, training)
        x = self.target_dropout(self._embed(self._target, previous), training=training)
        intermediates["target"] = x
        time = tf.range(tf.shape(x)[1])
        later = _hide(time[None] > time[:, None], x.dtype)
        for number, layer in enumerate(self.decoder):
            outputs, _ = layer(x, layer.cross_attention.keys(memory), masking, later, training=training)
            x = outputs["feed_forward"]
            intermediates |= {f"decoder.{number}.{name}": value for name, value in outputs.items()}
        logits = self._logits(x)
        return logits, intermediates | {"logits": logits}

    def start(self, source: tf.Tensor, source_lengths: tf.Tensor, width: int) -> dict[str, tf.Tensor]:
        """Encode the source for a search.

        Args:
            source: ``(batch, source)`` tokens.
            source_lengths: ``(batch,)``.
            width: number of hypotheses per example.

        Returns:
            the state before the first step: for each layer the keys and values of the source, and those of the
            ``batch * width`` hypotheses, which have no position yet.
        """
        memory, masking, _ = self._encode(source, source_lengths, False)
        state = {"masking": masking}
        for number, layer in enumerate(self.decoder):
            key, value = layer.cross_attention.keys(memory)
            none = tf.zeros([tf.shape(source)[0] * width, key.shape[1], 0, key.shape[3]], key.dtype)
            state |= {f"source.{number}.key": key, f"source.{number}.value": value}
            state |= {f"past.{number}.key": none, f"past.{number}.value": none}
        return state

    def step(
        self, state: dict[str, tf.Tensor], tokens: tf.Tensor, parents: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Compute the logits after one more token.

        Args:
            state: result of :meth:`start` or of the previous step.
            tokens: ``(rows,)`` the last token of each row.
            parents: ``(rows,)`` the row of ``state`` that each row continues, of the same example.

        Returns:
            ``(rows, outputs)`` logits and the next state.

        Raises:
            tf.errors.InvalidArgumentError: the target is longer than ``max_positions``.
        """
        state = dict(state)
        x = self._embed(self._target, tokens[:, None], tf.shape(state["past.0.key"])[2])
        for number, layer in enumerate(self.decoder):
            source = state[f"source.{number}.key"], state[f"source.{number}.value"]
            past = tuple(tf.gather(state[f"past.{number}.{name}"], parents) for name in ("key", "value"))
            outputs, (key, value) = layer(x, source, state["masking"], None, past)
            x = outputs["feed_forward"]
            state |= {f"past.{number}.key": key, f"past.{number}.value": value}
        return self._logits(x)[:, 0], state

    @property
    def _source(self) -> Embedding:
        return self.embedding if self.spec.share_embeddings else self.source_embedding

    @property
    def _target(self) -> Embedding:
        return self.embedding if self.spec.share_embeddings else self.target_embedding

    def _encode(
        self, source: tf.Tensor, lengths: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        x = self.source_dropout(self._embed(self._source, source), training=training)
        intermediates = {"source": x}
        masking = _hide(~valid_frames(lengths, tf.shape(x)[1])[:, None, None], x.dtype)
        for number, layer in enumerate(self.encoder):
            outputs = layer(x, masking, training=training)
            x = outputs["feed_forward"]
            intermediates |= {f"encoder.{number}.{name}": value for name, value in outputs.items()}
        memory = self.encoder_norm(x) if self.spec.norm == "pre" else x
        return memory, masking, intermediates | {"memory": memory}

    def _embed(self, embedding: Embedding, tokens: tf.Tensor, start: int | tf.Tensor = 0) -> tf.Tensor:
        end, longest = start + tf.shape(tokens)[1], self.spec.max_positions
        short = tf.debugging.assert_less_equal(end, longest, "the input has more tokens than model.max_positions")
        with tf.control_dependencies([short] if short is not None else []):  # or the lookup may fail first
            end = tf.identity(end)
        x = embedding(tokens)
        return x * math.sqrt(self.spec.dim) + tf.cast(tf.gather(self.table, tf.range(start, end)), x.dtype)

    def _logits(self, x: tf.Tensor) -> tf.Tensor:
        x = self.decoder_norm(x) if self.spec.norm == "pre" else x
        if not self.spec.tie_output:
            return self.head(x)
        weight = self._target.weight.value
        flat = tf.matmul(tf.cast(tf.reshape(x, [-1, self.spec.dim]), weight.dtype), weight, transpose_b=True)
        return tf.reshape(flat, [tf.shape(x)[0], tf.shape(x)[1], weight.shape[0]])


def _hide(hidden: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(hidden, dtype) * tf.constant(shared.MASKED_SCORE, dtype)
