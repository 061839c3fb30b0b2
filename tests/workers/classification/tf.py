"""The methods of the TensorFlow classification task, on stubs that pass on what the features receive."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.workers import stock
from tests.workers.classification.cases import ARGUMENTS, INPUTS, SMOOTHING
from toolkit.data.columns import image, label
from toolkit.data.loaders.tf import signature
from toolkit.data.split import EXAMPLE
from toolkit.tasks.classification.spec import Classification as Spec
from toolkit.tasks.classification.tf import Classification

FIELDS = EXAMPLE | image.FIELDS | image.AUGMENTATION | label.FIELDS
KINDS = (("float32", "float32"), ("float64", "float64"), ("bfloat16", "mixed_bfloat16"))


class Features(keras.layers.Layer):
    def __init__(self, width: int) -> None:
        super().__init__(autocast=False)
        self.width = width

    def call(self, images: Any, *augmentation: Any) -> Any:
        given = zip(ARGUMENTS, (images, *augmentation), strict=True)
        self.dtypes = {name: a.dtype.name for name, a in given if a is not None}
        pixels = tf.reshape(images, [tf.shape(images)[0], self.width])
        return tf.cast(pixels, keras.config.floatx()) / 255


class Model(keras.Model):
    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.head = keras.layers.Dense(weight.shape[0], use_bias=False)
        self.head.build([None, weight.shape[1]])
        self.head.kernel.assign(weight.T)

    def call(self, pixels: Any, training: bool = False) -> Any:
        return self.head(pixels) * (2 if training else 1), {"pixels": pixels}


def compute(given: dict[str, Any]) -> dict[str, Any]:
    weight = given.pop("weight")
    batch = {k: tf.constant(v) for k, v in given.items()}
    out: dict[str, Any] = {}
    for kind, policy in KINDS:
        keras.config.set_floatx("float64" if kind == "float64" else "float32")
        keras.config.set_dtype_policy(policy)
        for eps in (0.0, SMOOTHING):
            out |= {f"{kind}/{eps}/{k}": v for k, v in methods(kind, eps, weight, batch).items()}
    return out | stock_fit(weight, batch)


def task_of(eps: float, weight: np.ndarray) -> Classification:
    return Classification(Spec(label_smoothing=eps), Features(weight.shape[1]), Model(weight))


def methods(kind: str, eps: float, weight: np.ndarray, batch: dict[str, Any]) -> dict[str, Any]:
    """Loss, gradient, evaluation and prediction, in graphs that take any shape."""
    task, fields = task_of(eps, weight), [signature(FIELDS)]
    found = tf.function(task.evaluate, input_signature=fields, autograph=False)(batch)
    assert task.features.dtypes == {name: batch[name].dtype.name for name in ARGUMENTS}

    @tf.function(input_signature=fields, autograph=False)
    def step(batch: dict[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            loss = task.loss(batch)
        return loss, tape.gradient(loss, task.model.head.kernel.value)

    loss, gradient = step(batch)
    assert loss.dtype == found["loss"].dtype == ("float64" if kind == "float64" else "float32")
    assert found["log_probs"].dtype == tf.float32 and loss.shape == ()
    inputs = {name: batch[name] for name in INPUTS}
    signatures = [signature({name: FIELDS[name] for name in INPUTS})]
    predicted = tf.function(task.predict, input_signature=signatures, autograph=False)(inputs)
    assert list(task.features.dtypes) == ["images"]
    out = {"loss": loss, "gradient": gradient.numpy().T} | {f"evaluate/{k}": v for k, v in found.items()}
    return out | {f"predict/{k}": v for k, v in predicted.items()}


def stock_fit(weight: np.ndarray, batch: dict[str, Any]) -> dict[str, Any]:
    """Under Keras' ``fit``: the raw loss of each batch, and a step that was clipped."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    return stock.fit(task_of(SMOOTHING, weight), batch)
