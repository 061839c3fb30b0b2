"""Log-mel features in TensorFlow."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from toolkit.features.log_mel import spec as log_mel


class LogMel(keras.layers.Layer):
    """See :class:`toolkit.features.log_mel.spec.LogMel`.

    Args:
        spec: the neutral description.
        state: result of ``spec.load``.
    """

    def __init__(self, spec: log_mel.LogMel, state: dict[str, np.ndarray]) -> None:
        super().__init__(autocast=False, dtype=keras.config.floatx())  # bfloat16 would spoil the waveform
        self.spec = spec
        self.window = tf.constant(spec.window_function())
        self.mel = tf.constant(spec.mel_matrix())
        self.statistics = {name: tf.constant(array) for name, array in state.items()}
        self.built = True

    def call(
        self,
        waveforms: tf.Tensor,
        lengths: tf.Tensor,
        time_masks: tf.Tensor | None = None,
        frequency_masks: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Compute the features of a batch.

        Args:
            waveforms: ``(batch, samples)``, full scale 1.0.
            lengths: ``(batch,)`` samples.
            time_masks: ``(batch, masks, 2)`` int, (first frame, frames); None = no masks.
            frequency_masks: ``(batch, masks, 2)`` int, (first band, bands); None = no masks.

        Returns:
            ``(batch, frames, mel)``, zero where masked and beyond the end, and ``(batch,)`` frames.
        """
        spec = self.spec
        frames = tf.signal.frame(tf.cast(waveforms, tf.float64), spec.window_samples, spec.hop_samples) * self.window
        spectrum = tf.signal.rfft(frames, [spec.fft])
        power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
        values = tf.math.log(tf.maximum(tf.matmul(power, self.mel), spec.log_floor))
        frame_lengths = spec.frames(lengths)
        time, band = tf.range(tf.shape(values)[1]), tf.range(spec.mels)
        valid = time < frame_lengths[:, None]
        values = self._normalize(values, valid[..., None], frame_lengths)
        keep = (valid if time_masks is None else valid & ~_covered(time_masks, time))[:, :, None]
        if frequency_masks is not None:
            keep = keep & ~_covered(frequency_masks, band)[:, None, :]
        zero = tf.zeros([], values.dtype)
        return tf.cast(tf.where(keep, values, zero), self.compute_dtype), frame_lengths

    def _normalize(self, values: tf.Tensor, valid: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        zero = tf.zeros([], values.dtype)
        if self.spec.normalize == "utterance":
            count = tf.cast(tf.maximum(lengths, 1), values.dtype)[:, None, None]
            mean = tf.reduce_sum(tf.where(valid, values, zero), 1, keepdims=True) / count
            values = values - mean
            variance = tf.reduce_sum(tf.square(tf.where(valid, values, zero)), 1, keepdims=True) / count
            return values / tf.sqrt(variance + self.spec.epsilon)
        if self.spec.normalize == "training_set":
            return (values - self.statistics["mean"]) / tf.sqrt(self.statistics["variance"] + self.spec.epsilon)
        return values


def _covered(masks: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Mark positions within a mask: ``(batch, masks, 2)``, ``(positions,)`` -> ``(batch, positions)`` bool."""
    first, width = masks[:, :, 0, None], masks[:, :, 1, None]
    return tf.reduce_any((index >= first) & (index < first + width), 1)
