"""TensorFlow's Transformer, step by step beside the whole forward pass."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tests.workers.transformer.cases import LENGTHS, SPECS, VOCABULARY, WIDTH, drawn, sources, walk
from toolkit.layers.tf import set_weights
from toolkit.models.transformer.spec import Transformer as Spec
from toolkit.models.transformer.tf import Transformer


def model_of(spec: Spec, dtype: str = "float64") -> Transformer:
    keras.config.set_floatx("float32" if dtype == "mixed_bfloat16" else dtype)
    keras.config.set_dtype_policy(dtype)
    model = Transformer(spec, VOCABULARY, VOCABULARY)
    set_weights(model, drawn(spec))
    return model


def compute(given: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, spec in SPECS.items():
        out |= {f"{name}/{key}": value for key, value in (steps(spec) | bfloat16(spec)).items()}
    refuse_too_long(model_of(SPECS["post"]))
    return out


def steps(spec: Spec) -> dict[str, Any]:
    """Each step of the walk, beside the whole forward pass on what each row has by then."""
    model = model_of(spec)
    source, lengths = tf.constant(sources()), tf.constant(LENGTHS)
    wide_source, wide_lengths = (tf.repeat(x, WIDTH, 0) for x in (source, lengths))
    step = tf.function(model.step, autograph=False, reduce_retracing=True)
    state, out = model.start(source, lengths, WIDTH), {}
    for number, (tokens, parents, so_far) in enumerate(walk()):
        logits, state = step(state, tf.constant(tokens), tf.constant(parents))
        whole, found = model(wide_source, wide_lengths, tf.constant(so_far))
        out |= {f"step/{number}": logits, f"whole/{number}": whole[:, -1]}
    assert step.experimental_get_tracing_count() <= 2  # the empty cache, and any
    return out | {"source": found["source"][::WIDTH], "target": found["target"]}


def bfloat16(spec: Spec) -> dict[str, Any]:
    model, zero = model_of(spec, "mixed_bfloat16"), tf.zeros(3, tf.int32)
    source, lengths = tf.constant(sources()), tf.constant(LENGTHS)
    logits, state = model.step(model.start(source, lengths, 1), zero, zero)
    assert logits.dtype == tf.float32 and state["past.0.key"].dtype == tf.bfloat16
    return {"bfloat16/step": logits, "bfloat16/whole": model(source, lengths, zero[:, None])[0][:, 0]}


def refuse_too_long(model: Transformer) -> None:
    nine, ten = tf.ones([1, 9], tf.int32), tf.ones([1, 10], tf.int32)
    model(nine, tf.constant([9]), nine)
    state, zero = model.start(nine, tf.constant([9]), 1), tf.zeros(1, tf.int32)
    for _ in range(9):
        _, state = model.step(state, zero, zero)
    for wrong in (
        # also where the shape is known beforehand
        lambda: tf.function(model, autograph=False)(ten, tf.constant([10]), nine),
        lambda: model(nine, tf.constant([9]), ten),
        lambda: model.start(ten, tf.constant([10]), 1),
        lambda: model.step(state, zero, zero),
    ):
        try:
            wrong()
        except tf.errors.InvalidArgumentError as error:
            assert "more tokens than model.max_positions" in error.message, error
        else:
            raise AssertionError("too long an input was taken")
