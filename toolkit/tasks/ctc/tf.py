"""The TensorFlow twin of CTC speech recognition, and the CTC loss in float64.

``tf.nn.ctc_loss`` is not usable: its dense form takes memory of batch x frames x tokens x vocabulary and returns
finite nonsense for an utterance that is too short, and its sparse form is 1e-7 off even in float64.
``keras.losses.CTC`` ignores lengths.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from toolkit.tasks.tf import Task

IMPOSSIBLE = -1e30  # a log-probability; finite, so that the difference of two is not NaN


@tf.custom_gradient
def ctc_loss(logits: tf.Tensor, tokens: tf.Tensor, token_lengths: tf.Tensor, lengths: tf.Tensor) -> Any:
    """Compute the negative log-likelihood of each utterance by the forward-backward algorithm (Graves et al. 2006).

    After u tokens a path is in blank u or in token u, for u from 0 to the number of tokens; there is no token 0. The
    last axis of the arrays of both is u. The backward pass is the forward pass over the reversed utterance, so both
    run in one loop over time, as a batch of twice the size: the time of a step is that of launching its operations.

    Args:
        logits: ``(batch, time, vocabulary)`` float64, blank 0.
        tokens: ``(batch, tokens)`` int32.
        token_lengths: ``(batch,)`` int32.
        lengths: ``(batch,)`` int32, frames.

    Returns:
        ``(batch,)`` nats; 0, with gradient 0, if the utterance has too few frames for its tokens.
    """
    log_probs = tf.nn.log_softmax(logits)
    after = tf.pad(tokens, [[0, 0], [1, 0]])  # column u: the token that ends in u; column 0: the blank
    emitted = tf.gather(log_probs, after, batch_dims=1, axis=2)
    blank_emitted, token_emitted = emitted[:, :, :1], emitted[:, :, 1:]
    back = [_reverse(blank_emitted, lengths, 1), _reverse(_reverse(token_emitted, lengths, 1), token_lengths, 2)]
    blank, token = _forward(
        tf.concat([tokens, _reverse(tokens, token_lengths, 1)], 0),
        tf.concat([blank_emitted, back[0]], 0),
        tf.concat([token_emitted, back[1]], 0),
    )
    (blank, blank_back), (token, token_back) = tf.split(blank, 2), tf.split(token, 2)

    repeats = (tokens[:, 1:] == tokens[:, :-1]) & tf.sequence_mask(token_lengths, tf.shape(tokens)[1])[:, 1:]
    needed = token_lengths + tf.reduce_sum(tf.cast(repeats, tf.int32), 1)
    possible = (needed <= lengths) & (lengths > 0)
    last = tf.maximum(lengths - 1, 0)
    log_likelihood = _log_add(
        *(tf.gather(tf.gather(x, last, batch_dims=1), token_lengths, batch_dims=1) for x in (blank, token))
    )

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, None, None]:
        def occupied(forth: tf.Tensor, back: tf.Tensor, emitted: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
            back = _reverse(_reverse(back, lengths, 1), states, 2)
            share = tf.exp(tf.minimum(forth + back - emitted - log_likelihood[:, None, None], 0.0))
            return tf.where(tf.sequence_mask(states, tf.shape(forth)[2])[:, None], share, 0.0)

        blanks = occupied(blank, blank_back, blank_emitted, token_lengths + 1)
        by_token = occupied(token[:, :, 1:], token_back[:, :, 1:], token_emitted, token_lengths)
        share = _sum_by_token(by_token, tokens, tf.shape(logits)[2])
        share += tf.pad(tf.reduce_sum(blanks, 2, keepdims=True), [[0, 0], [0, 0], [0, tf.shape(logits)[2] - 1]])
        counts = tf.sequence_mask(lengths, tf.shape(logits)[1]) & possible[:, None]
        derivative = tf.where(counts[:, :, None], tf.exp(log_probs) - share, 0.0)
        return derivative * upstream[:, None, None], None, None, None

    return tf.where(possible, -log_likelihood, 0.0), gradient


def _forward(tokens: tf.Tensor, blank_emitted: tf.Tensor, token_emitted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the log-probability of each state after each frame, including the emission of the frame.

    The values of padding tokens and frames are computed too, and do not affect the others.

    Args:
        tokens: ``(batch, tokens)``.
        blank_emitted: ``(batch, time, 1)`` log-probabilities.
        token_emitted: ``(batch, time, tokens)``.

    Returns:
        blanks and tokens, each ``(batch, time, tokens + 1)``.
    """
    dtype = token_emitted.dtype
    batch, width = tf.shape(tokens)[0], tf.shape(tokens)[1]
    frames = tf.transpose(tf.concat([blank_emitted, tf.zeros_like(blank_emitted), token_emitted], 2), [1, 0, 2])
    after = tf.pad(tokens, [[0, 0], [1, 0]])
    # token u + 1 may follow token u without a blank between them where they differ
    differs = tf.pad(after[:, 1:] != after[:, :-1], [[0, 0], [0, 1]])
    nowhere = tf.fill([batch, 1], tf.constant(IMPOSSIBLE, dtype))
    token = tf.fill([batch, width + 1], tf.constant(IMPOSSIBLE, dtype))
    blank = tf.concat([tf.zeros([batch, 1], dtype), token[:, 1:]], 1)  # before the first frame: no token yet

    def step(t: tf.Tensor, blank: tf.Tensor, token: tf.Tensor, seen: tf.TensorArray) -> tuple[Any, ...]:
        either = _log_add(blank, token)
        entered = tf.concat([nowhere, tf.where(differs, either, blank)[:, :-1]], 1)
        emitted = frames[t]  # frames[t, :, 1:] is another slice under XLA: it begins at 0
        blank = either + emitted[:, :1]
        token = _log_add(token, entered) + emitted[:, 1:]
        return t + 1, blank, token, seen.write(t, tf.concat([blank, token], 1))

    seen = tf.TensorArray(dtype, size=tf.shape(frames)[0])
    *_, seen = tf.while_loop(lambda t, *_: t < tf.shape(frames)[0], step, (0, blank, token, seen))
    states = tf.reshape(seen.stack(), [-1, batch, 2 * (width + 1)])
    return tuple(tf.split(tf.transpose(states, [1, 0, 2]), 2, axis=2))


def _log_add(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    larger = tf.maximum(a, b)
    return larger + tf.nn.softplus(tf.minimum(a, b) - larger)


def _reverse(x: tf.Tensor, lengths: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.reverse_sequence(x, lengths, seq_axis=axis, batch_axis=0)


def _sum_by_token(shares: tf.Tensor, tokens: tf.Tensor, vocabulary: tf.Tensor) -> tf.Tensor:
    """Sum ``(batch, time, tokens)`` over the occurrences of each token, to ``(batch, time, vocabulary)``."""
    batch, time = tf.shape(shares)[0], tf.shape(shares)[1]
    rows = tf.reshape(tf.transpose(shares, [0, 2, 1]), [-1, time])
    ids = tf.reshape(tf.range(batch)[:, None] * vocabulary + tokens, [-1])
    summed = tf.math.unsorted_segment_sum(rows, ids, batch * vocabulary)
    return tf.transpose(tf.reshape(summed, [batch, vocabulary, time]), [0, 2, 1])


class CTC(Task):
    """Features, model and CTC loss: waveforms in, loss or log-probabilities out.

    Args:
        spec: the task's spec.
        features: maps ``(waveforms, lengths[, time_masks, frequency_masks])`` to ``(features, frame lengths)``.
        model: maps features to ``(logits, lengths, intermediates)``.
    """

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> tuple[tf.Tensor, tf.Tensor, dict[str, Any]]:
        """Return ``(batch, time, vocabulary)`` logits, ``(batch,)`` frames, and the model's intermediates."""
        features, lengths = self.features(
            batch["waveforms"], batch["waveform_lengths"], batch.get("time_masks"), batch.get("frequency_masks")
        )
        return self.model(features, lengths, training=training)

    def loss(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return the mean loss over the utterances, in float32 (float64 if the model is)."""
        logits, lengths, _ = self(batch, training=True)
        loss = tf.reduce_mean(_utterance_losses(logits, lengths, batch))
        return loss if logits.dtype == tf.float64 else tf.cast(loss, tf.float32)

    def predict(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return ``log_probs (batch, time, vocabulary)`` float32 and ``lengths (batch,)`` frames."""
        logits, lengths, _ = self(inputs, training=False)
        log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float64))
        return {"log_probs": tf.cast(log_probs, tf.float32), "lengths": lengths}

    def evaluate(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the outputs of :meth:`predict`, and ``loss (batch,)``."""
        logits, lengths, _ = self(batch, training=False)
        log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float64))
        losses = _utterance_losses(logits, lengths, batch)
        return {"loss": losses, "log_probs": tf.cast(log_probs, tf.float32), "lengths": lengths}


def _utterance_losses(logits: tf.Tensor, lengths: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
    tokens, token_lengths = tf.cast(batch["tokens"], tf.int32), tf.cast(batch["token_lengths"], tf.int32)
    return ctc_loss(tf.cast(logits, tf.float64), tokens, token_lengths, tf.cast(lengths, tf.int32))
