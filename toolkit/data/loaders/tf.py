"""The plan's batches as TensorFlow tensors, through ``tf.data``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from toolkit.data.batch import Collate, Fields, NoBatch, attempt

PREFETCH = 2  # batches made while the device works


def signature(fields: Fields) -> dict[str, tf.TensorSpec]:
    """Return shapes and dtypes of a batch; an axis of varying size is None, so that a graph is traced once."""
    return {
        name: tf.TensorSpec([a if isinstance(a, int) else None for a in axes], tf.as_dtype(dtype))
        for name, (axes, dtype) in fields.items()
    }


def loader(
    collator: Collate, batches: list[np.ndarray], fields: Fields, epoch: int = 0, workers: int = 0
) -> Iterator[Any]:
    """Yield ``batches`` (positions in the split) in order. The workers are threads, so none can die alone.

    Raises:
        NoBatch: a batch cannot be made.
    """
    specs = signature(fields)
    dtypes = [s.dtype for s in specs.values()]
    failed: list[NoBatch] = []

    def gather(index: np.ndarray) -> list[np.ndarray]:
        batch = attempt(collator, batches[int(index)], epoch)
        if isinstance(batch, NoBatch):
            failed.append(batch)
            raise batch
        return [batch[name] for name in specs]

    def load(index: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.numpy_function(gather, [index], dtypes, stateful=False)
        return {name: tf.ensure_shape(v, s.shape) for (name, s), v in zip(specs.items(), values, strict=True)}

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread delays the end of every epoch by a second or more
    dataset = tf.data.Dataset.range(len(batches)).map(load, num_parallel_calls=workers or None)
    try:
        yield from dataset.prefetch(PREFETCH).with_options(options)
    except tf.errors.OpError as error:  # it holds only the text of the exception raised inside
        raise (failed or [error])[0] from error
