"""Losses and gradients of the TensorFlow CTC task, and its methods on a stub model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.workers import stock
from toolkit.tasks.ctc.spec import CTC as Spec
from toolkit.tasks.ctc.tf import CTC, ctc_loss

INPUTS = ("waveforms", "waveform_lengths")
SIGNATURE = [tf.TensorSpec([None] * 3, tf.float64), tf.TensorSpec([None, None], tf.int32)]
SIGNATURE += [tf.TensorSpec([None], tf.int32)] * 2 + [tf.TensorSpec([None], tf.float64)]


class Features(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__(autocast=False)

    def call(self, waveforms: Any, lengths: Any, time_masks: Any, frequency_masks: Any) -> Any:
        self.seen, self.masks = waveforms.dtype, (time_masks, frequency_masks)
        return tf.reshape(waveforms, [tf.shape(waveforms)[0], -1, 4]), lengths // 4


class Model(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.head = keras.layers.Dense(6)

    def call(self, features: Any, lengths: Any, training: bool = False) -> Any:
        return self.head(features) * (2 if training else 1), lengths, {"features": features}


@tf.function(input_signature=SIGNATURE, autograph=False)
def loss_and_gradient(logits: Any, tokens: Any, token_lengths: Any, lengths: Any, weight: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = ctc_loss(logits, tokens, token_lengths, lengths)
        total = tf.reduce_sum(loss * weight)
    return loss, tape.gradient(total, logits)


def compute(given: dict[str, Any]) -> dict[str, Any]:
    """Everything, of cases ``NAME/...`` and of the batch ``task/...``."""
    out: dict[str, Any] = {}
    for name in sorted({key.split("/")[0] for key in given if not key.startswith("task/")}):
        rest = [given[f"{name}/{k}"] for k in ("tokens", "token_lengths", "lengths", "weight")]
        for kind in (tf.float64, tf.float32, tf.bfloat16):
            logits = tf.cast(tf.cast(given[f"{name}/logits"], kind), tf.float64)
            loss, gradient = loss_and_gradient(logits, *rest)
            gradient = tf.cast(gradient, kind)
            if kind == tf.bfloat16:
                gradient = tf.cast(gradient, tf.float32)
            out |= {f"{name}/{kind.name}/loss": loss, f"{name}/{kind.name}/gradient": gradient}
    assert loss_and_gradient.experimental_get_tracing_count() == 1
    batch = {key[5:]: v for key, v in given.items() if key.startswith("task/")}
    for kind in ("float32", "float64"):
        task, tensors, found = methods(batch, kind)
        out |= {f"task/{kind}/{key}": value for key, value in found.items()}
    check_mixed_precision(tensors)
    return out | stock.fit(task, tensors)


def methods(batch: dict[str, Any], kind: str) -> tuple[CTC, dict[str, Any], dict[str, Any]]:
    """The task, its batch and what its methods return."""
    keras.config.set_floatx(kind)
    keras.config.set_dtype_policy(kind)
    batch = batch | {"waveforms": batch["waveforms"].astype(kind)}
    weight, bias = batch.pop("weight"), batch.pop("bias")
    tensors = {k: tf.constant(v) for k, v in batch.items()}
    task = CTC(Spec(), Features(), Model())
    task.evaluate(tensors)
    for seen, name in zip(task.features.masks, ("time_masks", "frequency_masks"), strict=True):
        assert np.array_equal(seen, tensors[name])
    task.model.head.set_weights([weight.T, bias])
    found = tf.function(task.evaluate, autograph=False)(tensors)
    predicted = tf.function(task.predict, autograph=False)({name: tensors[name] for name in INPUTS})
    assert task.features.masks == (None, None)
    with tf.GradientTape() as tape:
        loss = task.loss(tensors)
    assert loss.dtype == kind and loss.shape == () and found["log_probs"].dtype == tf.float32
    out = {"loss": loss, "gradient": tape.gradient(loss, task.model.head.kernel).numpy().T}
    out |= {f"evaluate/{k}": v for k, v in found.items()}
    return task, tensors, out | {f"predict/{k}": v for k, v in predicted.items()}


def check_mixed_precision(batch: dict[str, Any]) -> None:
    """Mixed precision is for the model: waveforms stay whole, and so does the loss."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = CTC(Spec(), Features(), Model())
    loss = mixed.loss(batch | {"waveforms": tf.cast(batch["waveforms"], tf.float32)})
    assert mixed.features.seen == tf.float32 and mixed.model.head.compute_dtype == "bfloat16"
    assert loss.dtype == tf.float32
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def losses(given: dict[str, Any]) -> dict[str, Any]:
    """The loss of one case."""
    return {"loss": ctc_loss(*(tf.constant(given[k]) for k in ("logits", "tokens", "token_lengths", "lengths")))}
