"""The methods of the TensorFlow classification task, on stubs that pass on what the features receive."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.workers.classification.cases import ARGUMENTS, SMOOTHING
from toolkit.data.loaders.tf import signature
from toolkit.tasks.classification.spec import Classification as Spec
from toolkit.tasks.classification.tf import Classification

KINDS = (("float32", "float32"), ("float64", "float64"), ("bfloat16", "mixed_bfloat16"))


class Features(keras.layers.Layer):
    def __init__(self, width: int) -> None:
        super().__init__(autocast=False)
        self.width = width

    def call(self, *given: Any) -> Any:
        self.dtypes = {name: a.dtype.name for name, a in zip(ARGUMENTS, given, strict=True)}
        pixels = tf.reshape(given[0], [tf.shape(given[0])[0], self.width])
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
    """Loss, gradient and evaluation, in graphs that take any shape."""
    task, fields = task_of(eps, weight), [signature(Spec.fields)]
    found = tf.function(task.evaluate_batch, input_signature=fields)(batch)
    assert task.features.dtypes == {name: batch[name].dtype.name for name in ARGUMENTS}

    @tf.function(input_signature=fields)
    def step(batch: dict[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            loss = task.batch_loss(batch, True)
        return loss, tape.gradient(loss, task.model.head.kernel.value)

    loss, gradient = step(batch)
    assert loss.dtype == found["loss"].dtype == ("float64" if kind == "float64" else "float32")
    assert found["log_probs"].dtype == tf.float32 and loss.shape == ()
    return {"loss": loss, "gradient": gradient.numpy().T} | {f"evaluate/{k}": v for k, v in found.items()}


def stock_fit(weight: np.ndarray, batch: dict[str, Any]) -> dict[str, Any]:
    """Under Keras' ``fit``: the raw loss of each batch, and a step that was clipped."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    task = task_of(SMOOTHING, weight)
    task.clip_norm = 1e-3
    task.compile(optimizer=keras.optimizers.SGD(1.0), jit_compile=False)
    history = task.fit(tf.data.Dataset.from_tensors(batch), epochs=1, verbose=0).history
    return {"fit/loss": history["loss"][0], "fit/moved": np.linalg.norm(task.model.head.kernel.numpy() - weight.T)}
