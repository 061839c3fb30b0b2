"""Computes the cases of the twin tests in TensorFlow: ``python -m tests.twins.tf_worker JOB FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.twins import cases
from toolkit.build import build
from toolkit.features.log_mel.spec import LogMel
from toolkit.layers import tf as layers
from toolkit.models.conformer_ctc.spec import ConformerCTC
from toolkit.tasks.ctc.spec import CTC

_built: dict[tuple[Any, ...], tuple[keras.Model, Any]] = {}


def models(folder: Path) -> None:
    """Every case in ``cases.json``."""
    for case in cases.read(folder):
        np.savez(folder / f"{case.name}.tf.npz", **_model(case))


def _model(case: cases.Case) -> dict[str, np.ndarray]:
    key = (case.model, case.dtype, case.dropout, case.training)
    if key not in _built:  # a graph serves every batch of its kind
        _built[key] = _build(case)
    model, compute = _built[key]
    layers.set_weights(model, case.weights("tf"))
    cases.check_kept(case.weights("tf"), layers.get_weights(model))
    out = compute({name: tf.constant(array) for name, array in case.batch().items()})
    slots = {slot.name: slot for slot in layers.canonical_variables(model)}
    arrays = {name: value.numpy() for name, value in out.items()}
    for name in arrays:
        if name.startswith("gradient."):
            arrays[name] = slots[name.removeprefix("gradient.")].to_canonical(arrays[name])
    if case.training:
        after = layers.get_weights(model)
        arrays |= {f"after.{name}": value for name, value in after.items() if not slots[name].variable.trainable}
    return arrays


def _build(case: cases.Case) -> tuple[keras.Model, Any]:
    keras.config.set_floatx(case.dtype)
    keras.config.set_dtype_policy(case.dtype)
    features = build(LogMel(), "tf", {})
    model = build(case.spec(), "tf", features.spec.bands, cases.VOCABULARY)
    layers.bind(model, cases.SEED)
    layers.set_step(model, cases.STEP)
    task = build(CTC(), "tf", features, model)
    slots = [slot for slot in layers.canonical_variables(model) if slot.variable.trainable]

    @tf.function(reduce_retracing=True)
    def compute(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        _, lengths, intermediates = task(batch, training=case.training)
        out = {"lengths": lengths} | intermediates
        if not case.training:
            return out | task.evaluate_batch(batch)
        with tf.GradientTape() as tape:
            out["loss"] = task.batch_loss(batch, training=True)
        gradients = tape.gradient(out["loss"], [slot.variable.value for slot in slots])
        return out | {f"gradient.{s.name}": g for s, g in zip(slots, gradients, strict=True)}

    return model, compute


def parts(folder: Path) -> None:
    """Features and layers by themselves, in ``parts.tf.npz``."""
    out: dict[str, tf.Tensor] = {}
    batch = {name: tf.constant(array) for name, array in cases.Case("", "").batch().items()}
    masks = batch["time_masks"], batch["frequency_masks"]
    for name, spec in cases.feature_specs().items():
        features = tf.function(build(spec, "tf", cases.feature_state(spec, folder)), reduce_retracing=True)
        for kind, drawn in (("masked", masks), ("whole", [0 * mask for mask in masks])):
            values, lengths = features(batch["waveforms"], batch["waveform_lengths"], *drawn)
            out |= {f"{name}.{kind}": values, f"{name}.{kind}.lengths": lengths}

    for step in cases.STEPS:
        for path, rate, shape, native in cases.DROPOUTS:
            dropout, parent = layers.Dropout(rate, native), keras.layers.Layer()
            setattr(parent, path, dropout)
            layers.bind(parent, cases.SEED)
            layers.set_step(parent, step)
            kind = "native" if native else "hash"
            out[f"dropout.{kind}.{path}.{step}"] = dropout(tf.ones(shape), training=True) != 0
            out[f"dropout.{kind}.{path}.{step}.again"] = dropout(tf.ones(shape), training=True) != 0
            out[f"dropout.{kind}.{path}.{step}.evaluating"] = dropout(tf.ones(shape))
    out["too_long"] = tf.constant(_refuses_what_is_too_long())
    np.savez(folder / "parts.tf.npz", **{name: value.numpy() for name, value in out.items()})


def _refuses_what_is_too_long() -> bool:
    model = tf.function(build(ConformerCTC(max_positions=10), "tf", 80, 5), reduce_retracing=True)
    model(tf.zeros([1, 43, 80]), tf.constant([43]))  # 10 steps
    try:
        model(tf.zeros([1, 47, 80]), tf.constant([47]))
    except tf.errors.InvalidArgumentError as error:
        return "max_positions" in error.message
    return False


if __name__ == "__main__":
    {"models": models, "parts": parts}[sys.argv[1]](Path(sys.argv[2]))
