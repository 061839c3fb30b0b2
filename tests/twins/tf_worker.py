"""Computes the cases of the twin tests in TensorFlow: ``python -m tests.twins.tf_worker JOB FOLDER``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from tests.twins import cases, mutants
from tests.twins.content.audio import speech
from tests.twins.content.base import ROWS, SEED, Arrays
from tests.twins.content.text import BEAM, WALK, walk
from toolkit.config.build import build
from toolkit.data.loaders.tf import signature
from toolkit.features.log_mel.spec import LogMel
from toolkit.layers import tf as layers
from toolkit.layers.dropout.tf import Dropout
from toolkit.models.conformer_ctc.spec import ConformerCTC
from toolkit.training.tf import compile_search

BUILT: dict[str, Any] = {}  # mutant, dtype and specs -> task; building one takes as long as computing


def models(folder: Path) -> None:
    """Every case in ``cases.json``."""
    cases.work("tf", _mutated, folder)


def _mutated(case: cases.Case, given: Arrays) -> Arrays:
    with mutants.MUTANTS[case.mutant].patch() if case.mutant else contextlib.nullcontext():
        return _model(case, given)


def _model(case: cases.Case, given: Arrays) -> Arrays:
    keras.config.set_floatx(case.dtype)
    keras.config.set_dtype_policy(case.dtype)
    key = repr([case.mutant, case.dtype, *(case.spec(group) for group in ("models", "tasks", "features"))])
    if key not in BUILT:
        features = case.spec("features") and build(case.spec("features"), "tf", case.state())
        BUILT[key] = build(case.spec("tasks"), "tf", features, build(case.spec("models"), "tf", *case.sizes()))
        layers.bind(BUILT[key].model, SEED)
    task = BUILT[key]
    model = task.model
    layers.set_weights(model, given)
    cases.check_kept(given, layers.get_weights(model))
    layers.set_step(model, cases.STEP)
    batch = {name: tf.constant(array) for name, array in case.batch().items()}
    if not case.training:
        return _arrays(_intermediates(task(batch, training=False))) | _answers(case, task, batch)

    slots = {slot.name: slot for slot in layers.canonical_variables(model)}
    trained = {name: slot for name, slot in slots.items() if slot.variable.trainable}

    def compute(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        seen: list[Any] = []
        with tf.GradientTape() as tape, mock.patch.object(task, "call", _recording(task.call, seen)):
            loss = task.loss(batch)
        gradients = tape.gradient(loss, [slot.variable.value for slot in trained.values()])
        named = {f"gradient.{n}": tf.convert_to_tensor(g) for n, g in zip(trained, gradients, strict=True)}
        return _intermediates(*seen) | {"loss": loss} | named

    arrays = _arrays(_graph(case, compute, "training")(batch))
    for name, slot in trained.items():
        arrays[f"gradient.{name}"] = slot.to_canonical(arrays[f"gradient.{name}"])
    after = layers.get_weights(model)
    return arrays | {f"after.{name}": after[name] for name in given if name not in trained}


def _arrays(tensors: dict[str, tf.Tensor]) -> Arrays:
    return {name: value.numpy() for name, value in tensors.items()}


def _graph(case: cases.Case, function: Any, kind: Literal["training", "evaluation", "prediction"]) -> Any:
    """The function of a batch of this kind, as a graph if the case asks for it."""
    if not case.graph:
        return function
    return tf.function(function, input_signature=[signature(case.fields(kind))], autograph=False)


def _recording(call: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    """Return a function that also appends what ``call`` returns to ``seen``."""

    def recording(*arguments: Any, **named: Any) -> Any:
        seen.append(call(*arguments, **named))
        return seen[-1]

    return recording


def _intermediates(returned: Any) -> dict[str, tf.Tensor]:
    """Every intermediate, and lengths."""
    _, *lengths, intermediates = returned
    return intermediates | {f"lengths.{i}": length for i, length in enumerate(lengths)}


def _answers(case: cases.Case, task: Any, batch: dict[str, tf.Tensor]) -> Arrays:
    """An evaluation, and a prediction or a search from the inputs."""
    evaluated = _arrays(_graph(case, task.evaluate, "evaluation")(batch))
    inputs = case.inputs(batch)
    if task.spec.autoregressive:
        return cases.answers(task.spec, evaluated, {}) | _arrays(_steps(task, inputs, case))
    return cases.answers(task.spec, evaluated, _arrays(_graph(case, task.predict, "prediction")(inputs)))


def _steps(task: Any, inputs: dict[str, tf.Tensor], case: cases.Case) -> dict[str, tf.Tensor]:
    """Arguments of a search at every step."""
    begin, advance = task.begin, task.advance
    if case.graph:
        begin, advance = compile_search(task, signature(case.fields("prediction")))
    state, found = begin(inputs, BEAM), []
    for tokens, parents in walk(case.rows):
        log_probs, state = advance(state, tf.constant(tokens), tf.constant(parents))
        found.append(log_probs)
    return {"steps": tf.reshape(tf.stack(found, 1), [len(case.rows), BEAM, WALK, -1])}


def parts(folder: Path) -> None:
    """Features and layers by themselves, in ``parts.tf.npz``."""
    out: dict[str, tf.Tensor] = {}
    batch = {name: tf.constant(array) for name, array in speech(LogMel(), ROWS, True).items()}
    masks = batch["time_masks"], batch["frequency_masks"]
    for name, spec in cases.feature_specs().items():
        built = build(spec, "tf", cases.feature_state(spec, folder))
        features = tf.function(built, autograph=False, reduce_retracing=True)
        for kind, drawn in (("masked", masks), ("whole", [0 * mask for mask in masks])):
            values, lengths = features(batch["waveforms"], batch["waveform_lengths"], *drawn)
            out |= {f"{name}.{kind}": values, f"{name}.{kind}.lengths": lengths}

    for step in cases.STEPS:
        for path, rate, shape, native in cases.DROPOUTS:
            dropout, parent = Dropout(rate, native), keras.layers.Layer()
            setattr(parent, path, dropout)
            layers.bind(parent, SEED)
            layers.set_step(parent, step)
            kind = "native" if native else "hash"
            out[f"dropout.{kind}.{path}.{step}"] = dropout(tf.ones(shape), training=True) != 0
            out[f"dropout.{kind}.{path}.{step}.again"] = dropout(tf.ones(shape), training=True) != 0
            out[f"dropout.{kind}.{path}.{step}.evaluating"] = dropout(tf.ones(shape))
    out["too_long"] = tf.constant(_refuses_what_is_too_long())
    np.savez(folder / "parts.tf.npz", **{name: value.numpy() for name, value in out.items()})


def _refuses_what_is_too_long() -> bool:
    model = tf.function(build(ConformerCTC(max_positions=10), "tf", 80, 5), autograph=False, reduce_retracing=True)
    model(tf.zeros([1, 43, 80]), tf.constant([43]))  # 10 steps
    try:
        model(tf.zeros([1, 47, 80]), tf.constant([47]))
    except tf.errors.InvalidArgumentError as error:
        return "max_positions" in error.message
    return False


if __name__ == "__main__":
    {"models": models, "parts": parts}[sys.argv[1]](Path(sys.argv[2]))
