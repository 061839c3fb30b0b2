"""LSTM encoder and decoder with attention, in TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from toolkit.layers.basic.tf import Embedding, dense, valid_frames
from toolkit.layers.dropout.tf import Dropout
from toolkit.layers.recurrent.tf import LSTM
from toolkit.layers.spec import MASKED_SCORE
from toolkit.models.lstm_attention import spec as neutral

State = dict[str, tf.Tensor]


def _dropout(spec: neutral.LSTMAttention) -> Dropout:
    """Build a dropout that does not change the precision."""
    dropout = Dropout(spec.dropout, spec.native_dropout)
    dropout.autocast = False
    return dropout


class EncoderLayer(keras.layers.Layer):
    """An LSTM in each direction, concatenated."""

    def __init__(self, spec: neutral.LSTMAttention, inputs: int) -> None:
        super().__init__(autocast=False, dtype=keras.config.floatx())
        self.dropout = _dropout(spec)
        self.forwards = LSTM(inputs, spec.units // 2)
        self.backwards = LSTM(inputs, spec.units // 2)
        self.built = True

    def call(self, x: tf.Tensor, lengths: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map ``(batch, source, inputs)`` and ``(batch,)`` lengths to ``(batch, source, units)``."""
        x = self.dropout(x, training=training)
        backwards = tf.reverse_sequence(self.backwards(tf.reverse_sequence(x, lengths, 1, 0)), lengths, 1, 0)
        return tf.concat([self.forwards(x), backwards], -1)


class LSTMAttention(keras.Model):
    """See :class:`toolkit.models.lstm_attention.spec.LSTMAttention`.

    Args:
        spec: the neutral description.
        inputs: size of the source vocabulary.
        outputs: size of the target vocabulary.
    """

    def __init__(self, spec: neutral.LSTMAttention, inputs: int, outputs: int) -> None:
        whole = {"dtype": keras.config.floatx()}
        super().__init__(autocast=False, **whole)
        self.spec = spec
        numbers = range(spec.layers)
        self.source_embedding = Embedding(inputs, spec.embedding_dim)
        self.target_embedding = Embedding(outputs, spec.embedding_dim)
        self.encoder = [EncoderLayer(spec, spec.encoder_inputs(n)) for n in numbers]
        self.bridge = [dense(spec.units, spec.units, **whole) for _ in numbers]
        self.decoder = [LSTM(spec.decoder_inputs(n), spec.units) for n in numbers]
        self.dropouts = [_dropout(spec) for _ in numbers]
        self.keys = dense(spec.units, spec.units, bias=False, **whole) if spec.score == "general" else tf.identity
        self.combine = dense(2 * spec.units, spec.units, bias=False, **whole)
        self.dropout = _dropout(spec)
        self.head = dense(spec.units, outputs, **whole)
        self.built = True

    def call(
        self, source: tf.Tensor, source_lengths: tf.Tensor, previous: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Compute the logits of a batch.

        Args:
            source: ``(batch, source)`` token ids.
            source_lengths: ``(batch,)``, at least 1.
            previous: ``(batch, time)`` tokens: the boundary, then the target.

        Returns:
            ``(batch, time, outputs)`` logits, and the intermediates by name, in order.
        """
        encoded, hidden, intermediates = self._encode(source, source_lengths, training)
        x = self.target_embedding(previous)
        intermediates |= {"hidden": tf.transpose(hidden, [1, 0, 2]), "target_embedding": x}
        if self.spec.input_feeding:
            x = self._attend_step_by_step(x, hidden, encoded, training)
        else:
            for number, (lstm, dropout) in enumerate(zip(self.decoder, self.dropouts, strict=True)):
                x = lstm(dropout(x, training=training), hidden[number])
                intermediates[f"decoder.{number}"] = x
            x = self._attend(x, encoded)
        intermediates["combine"] = x
        logits = self.head(self.dropout(x, training=training))
        return logits, intermediates | {"logits": logits}

    def start(self, source: tf.Tensor, source_lengths: tf.Tensor, width: int) -> State:
        """Encode the source for a search with ``width`` hypotheses per example.

        Returns:
            for each source ``keys`` and ``memory`` ``(batch, source, units)`` and ``valid`` ``(batch, source)``; for
            each row ``hidden`` and ``cell`` ``(layers, batch * width, units)`` and, with input feeding, ``attended``
            ``(batch * width, units)``.
        """
        encoded, hidden, _ = self._encode(source, source_lengths, training=False)
        hidden = tf.repeat(hidden, width, axis=1)
        state = encoded | {"hidden": hidden, "cell": tf.zeros_like(hidden)}
        return state | ({"attended": tf.zeros_like(hidden[0])} if self.spec.input_feeding else {})

    def step(self, state: State, tokens: tf.Tensor, parents: tf.Tensor) -> tuple[tf.Tensor, State]:
        """Compute the logits after one more token.

        Args:
            state: result of :meth:`start` or of the previous step.
            tokens: ``(rows,)`` the last token of each row.
            parents: ``(rows,)`` the row of ``state`` that each row continues, of the same example.

        Returns:
            ``(rows, outputs)`` logits and the next state.
        """
        x = self.target_embedding(tokens)
        if self.spec.input_feeding:
            x = tf.concat([x, tf.gather(state["attended"], parents)], -1)
        hidden, cell = (tf.gather(state[name], parents, axis=1) for name in ("hidden", "cell"))
        hidden, cell = self._advance(x, hidden, cell, training=False)
        state = state | {"hidden": hidden, "cell": cell}
        queries = tf.reshape(hidden[-1], [tf.shape(state["keys"])[0], -1, self.spec.units])
        attended = tf.reshape(self._attend(queries, state), [-1, self.spec.units])
        if self.spec.input_feeding:
            state["attended"] = attended
        return self.head(attended), state

    def _encode(
        self, source: tf.Tensor, lengths: tf.Tensor, training: bool
    ) -> tuple[State, tf.Tensor, dict[str, tf.Tensor]]:
        """Return keys, memory and mask; the initial decoder states ``(layers, batch, units)``; the intermediates."""
        x = self.source_embedding(source)
        intermediates = {"source_embedding": x}
        for number, layer in enumerate(self.encoder):
            x = layer(x, lengths, training=training)
            intermediates[f"encoder.{number}"] = x
        half = self.spec.units // 2
        ends = tf.concat([tf.gather(x[..., :half], lengths - 1, batch_dims=1), x[:, 0, half:]], -1)
        hidden = tf.stack([tf.tanh(bridge(ends)) for bridge in self.bridge])
        encoded = {"keys": self.keys(x), "memory": x, "valid": valid_frames(lengths, tf.shape(x)[1])}
        return encoded, hidden, intermediates

    def _attend(self, queries: tf.Tensor, encoded: State) -> tf.Tensor:
        """Combine decoder states ``(batch, time, units)`` with their context vectors; same shape."""
        scores = tf.matmul(queries, encoded["keys"], transpose_b=True)
        weights = tf.nn.softmax(tf.where(encoded["valid"][:, None], scores, MASKED_SCORE))
        return tf.tanh(self.combine(tf.concat([tf.matmul(weights, encoded["memory"]), queries], -1)))

    def _attend_step_by_step(self, x: tf.Tensor, hidden: tf.Tensor, encoded: State, training: bool) -> tf.Tensor:
        x = tf.transpose(self.dropouts[0](x, training=training), [1, 0, 2])
        time = tf.shape(x)[0]
        steps = tf.TensorArray(x.dtype, time, element_shape=[None, x.shape[-1]]).unstack(x)
        outputs = tf.TensorArray(x.dtype, time, element_shape=[None, self.spec.units])

        def body(
            t: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor, attended: tf.Tensor, outputs: Any
        ) -> tuple[Any, ...]:
            hidden, cell = self._advance(tf.concat([steps.read(t), attended], -1), hidden, cell, training)
            attended = self._attend(hidden[-1][:, None], encoded)[:, 0]
            return t + 1, hidden, cell, attended, outputs.write(t, attended)

        start = (0, hidden, tf.zeros_like(hidden), tf.zeros_like(hidden[0]), outputs)
        *_, outputs = tf.while_loop(lambda t, *_: t < time, body, start, parallel_iterations=1)
        return tf.transpose(outputs.stack(), [1, 0, 2])

    def _advance(self, x: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Run one step of all layers: ``(rows, inputs)`` and twice ``(layers, rows, units)`` -> the next of these two.

        Dropout of the input is applied before; dropout between layers has the same mask at every step.
        """
        states = []
        for number, lstm in enumerate(self.decoder):
            x = self.dropouts[number](x, training=training) if number else x
            states.append(lstm.step(x, hidden[number], cell[number]))
            x = states[-1][0]
        hiddens, cells = zip(*states, strict=True)
        return tf.stack(hiddens), tf.stack(cells)
