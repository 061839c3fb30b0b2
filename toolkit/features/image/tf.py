"""Image features in TensorFlow."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from toolkit.features.image import spec as image


class Image(keras.layers.Layer):
    """See :class:`toolkit.features.image.spec.Image`.

    Args:
        spec: the neutral description.
        state: result of ``spec.load``.
    """

    def __init__(self, spec: image.Image, state: dict[str, np.ndarray]) -> None:
        super().__init__(autocast=False, dtype=keras.config.floatx())  # bfloat16 would spoil the pixels
        self.spec = spec
        self.scale, self.shift = (tf.constant(array, self.compute_dtype) for array in spec.scale_shift(state))
        self.built = True

    def call(
        self,
        images: tf.Tensor,
        boxes: tf.Tensor | None = None,
        flips: tf.Tensor | None = None,
        erased: tf.Tensor | None = None,
        partners: tf.Tensor | None = None,
        shares: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Compute the pixels of a batch.

        Args:
            images: ``(batch, height, width, channels)`` uint8.
            boxes: ``(batch, 4)`` int32, top, left, height and width of the crop in pixels; None = the whole image.
            flips: ``(batch,)`` bool; None = no flips.
            erased: ``(batch, 4)`` int32, a box of the result, height 0 = none; None = no image is erased.
            partners: ``(batch,)`` int32, the row of the image that is mixed in; None = no mixing.
            shares: ``(batch,)``, weight of the image itself, 1 = nothing is mixed in; None = no mixing.

        Returns:
            ``(batch, height, width, channels)``.
        """
        spec, dtype = self.spec, self.compute_dtype
        cropped = boxes is not None or flips is not None
        batch, height, width, _ = tf.unstack(tf.shape(images))
        if boxes is None:
            boxes = tf.tile(tf.stack([0, 0, height, width])[None], [batch, 1])
        if flips is None:
            flips = tf.zeros([batch], tf.bool)
        if spec.resizes:
            pixels = self._resampled(images, boxes, flips)
        else:
            pixels = tf.cast(_copied(images, boxes, flips) if spec.moves and cropped else images, dtype)
        pixels = pixels * self.scale - self.shift
        if spec.erase.probability and erased is not None:
            covered = _covered(erased, tf.shape(pixels)[1], tf.shape(pixels)[2])
            pixels = tf.where(covered, tf.zeros([], dtype), pixels)
        if spec.mixup and partners is not None and shares is not None:
            share = tf.cast(shares, dtype)[:, None, None, None]
            pixels = share * pixels + (1 - share) * tf.gather(pixels, partners)
        return pixels

    def _resampled(self, images: tf.Tensor, boxes: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
        """Interpolate: a matrix product over columns, then one over rows."""
        batch, height, width, channels = tf.unstack(tf.shape(images))
        out_height, out_width = self.spec.size or height, self.spec.size or width
        dtype, unflipped = self.compute_dtype, tf.zeros_like(flips)
        rows = _sampling(boxes[:, 0], boxes[:, 2], unflipped, out_height, height, dtype)
        columns = _sampling(boxes[:, 1], boxes[:, 3], flips, out_width, width, dtype)
        pixels = tf.cast(tf.transpose(images, [0, 2, 1, 3]), dtype)
        pixels = tf.matmul(columns, tf.reshape(pixels, [batch, width, height * channels]))
        pixels = tf.transpose(tf.reshape(pixels, [batch, out_width, height, channels]), [0, 2, 1, 3])
        pixels = tf.matmul(rows, tf.reshape(pixels, [batch, height, out_width * channels]))
        return tf.reshape(pixels, [batch, out_height, out_width, channels])


def _copied(images: tf.Tensor, boxes: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Copy boxes of the size of the images, black beyond the images."""
    batch, height, width, channels = tf.unstack(tf.shape(images))
    row, column = tf.range(height), tf.range(width)
    rows = tf.clip_by_value(boxes[:, 0, None] + row, -1, height) + 1
    columns = tf.where(flips[:, None], width - 1 - column, column)
    columns = tf.clip_by_value(boxes[:, 1, None] + columns, -1, width) + 1
    framed = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])  # one black pixel around stands for everything beyond
    first = tf.range(batch)[:, None] * (height + 2)
    places = (first + rows)[:, :, None] * (width + 2) + columns[:, None, :]
    return tf.gather(tf.reshape(framed, [-1, channels]), places)


def _sampling(
    start: tf.Tensor, extent: tf.Tensor, flips: tf.Tensor, size: tf.Tensor, length: tf.Tensor, dtype: str
) -> tf.Tensor:
    """Compute ``spec.sampling`` for a batch: ``(batch,)`` boxes to ``(batch, size, length)``.

    Centres are split into a pixel and a fraction in integers, so that float32 loses nothing in large images. No box is
    larger than its image.
    """
    index = tf.range(size)
    index = tf.where(flips[:, None], size - 1 - index, index)
    centre = (2 * index + 1) * extent[:, None] - size  # from the centre of the first pixel of the box, in 1 / (2 size)
    pixel = centre // (2 * size)
    fraction = (tf.cast(centre - pixel * 2 * size, dtype) / tf.cast(2 * size, dtype))[..., None]
    support = tf.maximum(tf.cast(extent, dtype) / tf.cast(size, dtype), 1)[:, None, None]

    reach = tf.maximum(1, -(-length // size))
    taps = pixel[..., None] + tf.range(-reach, reach + 2)
    in_box = (taps >= 0) & (taps < extent[:, None, None])
    near = _triangle(tf.cast(taps - pixel[..., None], dtype) - fraction, support)
    total = tf.reduce_sum(near * tf.cast(in_box, dtype), -1, keepdims=True)

    place = tf.range(length)
    in_box = ((place >= start[:, None]) & (place < (start + extent)[:, None]))[:, None]
    away = tf.cast(place, dtype) - tf.cast(start[:, None] + pixel, dtype)[..., None]
    return _triangle(away - fraction, support) * tf.cast(in_box, dtype) / total


def _triangle(distance: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1 - tf.abs(distance) / support, 0)


def _covered(boxes: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Mark pixels within the box of their image: ``(batch, 4)`` -> ``(batch, height, width, 1)`` bool."""
    row, column = tf.range(height), tf.range(width)
    top, left, rows, columns = (value[:, None] for value in tf.unstack(boxes, 4, axis=1))
    in_rows, in_columns = (row >= top) & (row < top + rows), (column >= left) & (column < left + columns)
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]
