"""Keras' ``fit`` on a task, as ``trainer=stock`` runs it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from toolkit.training.stock.tf import _Model

CLIP_NORM = 1e-3


def fit(task: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Take one clipped step of gradient descent; return the loss that ``fit`` reports and the length of the step."""
    model = _Model(task, CLIP_NORM)
    model.compile(optimizer=keras.optimizers.SGD(1.0), jit_compile=False)
    before = [variable.numpy() for variable in model.trainable_variables]
    history = model.fit(tf.data.Dataset.from_tensors(batch), epochs=1, verbose=0).history
    after = [variable.numpy() for variable in model.trainable_variables]
    moved = sum(float(((b - a) ** 2).sum()) for a, b in zip(before, after, strict=True)) ** 0.5
    return {"fit/loss": np.array(history["loss"][0]), "fit/moved": np.array(moved)}
