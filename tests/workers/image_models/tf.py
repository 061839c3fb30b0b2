"""TensorFlow's image models: batch norm, and a step of each model under mixed precision."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.workers.image_models.cases import CLASSES, MODELS, SIZE, initial, labels
from toolkit.config.build import build
from toolkit.layers import tf as layers
from toolkit.layers.normalization.tf import BatchNorm

POLICIES = {"float32": "float32", "bf16": "mixed_bfloat16"}


def compute(given: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for dtype in ("float64", "float32"):
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        for name in ("batch", "alone"):
            out |= {f"{name}/{dtype}/{key}": value for key, value in norm(given, dtype, name).items()}
    for name in MODELS:
        for precision, policy in POLICIES.items():
            keras.config.set_dtype_policy(policy)
            out |= {f"{name}/{precision}/{key}": value for key, value in step(name, given["images"]).items()}
    return out


def norm(given: dict[str, Any], dtype: str, name: str) -> dict[str, Any]:
    layer = BatchNorm(given["weight"].size)
    layer.weight.assign(given["weight"])
    layer.bias.assign(given["bias"])
    x = tf.constant(given[name], dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = layer(x, training=True)
        total = tf.reduce_sum(y * tf.stop_gradient(tf.cos(y)))
    found = {"y": y, "gradient": tape.gradient(total, x), "evaluated": layer(x)}
    found |= {"mean": layer.running_mean, "variance": layer.running_var}
    return found | {"by_weight": tape.gradient(total, layer.weight.value)}


def step(name: str, images: np.ndarray) -> dict[str, Any]:
    model = build(MODELS[name], "tf", SIZE, CLASSES)
    layers.set_weights(model, initial(MODELS[name]))
    layers.bind(model, 1)
    layers.set_step(model, 0)
    with tf.GradientTape() as tape:
        logits, _ = model(tf.constant(images, tf.float32), training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels(images), logits))
    return {"logits": logits, "gradient": tape.gradient(loss, model.head.kernel.value).numpy().T}
