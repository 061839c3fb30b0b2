"""TensorFlow's LSTM with attention: the whole forward pass, step by step, and in a search."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.workers.lstm_attention.cases import (
    LENGTHS,
    LONGER,
    PREVIOUS,
    SIZES,
    SOURCE,
    SPECS,
    WIDTH,
    drawn,
    searched,
    spec_of,
    steps,
)
from toolkit.layers import tf as layers
from toolkit.models.lstm_attention.tf import LSTMAttention
from toolkit.tasks.seq2seq.spec import Seq2Seq as Task
from toolkit.tasks.seq2seq.tf import Seq2Seq

KINDS = (
    ("mixed", "float32", "mixed_bfloat16"),
    ("float32", "float32", "float32"),
    ("float64", "float64", "float64"),
)


def tensors(*arrays: np.ndarray) -> list[Any]:
    return [tf.constant(a) for a in arrays]


def compute(given: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in SPECS:
        spec = spec_of(name)
        for kind, floatx, policy in KINDS:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(policy)
            model = LSTMAttention(spec, *SIZES)
            layers.set_weights(model, drawn(spec))
            out |= logits(f"{name}/{kind}", model)
        out |= {f"{name}/{key}": value for key, value in search(model).items()}  # of the last, in float64
    return out


def logits(name: str, model: LSTMAttention) -> dict[str, Any]:
    whole = model(*tensors(SOURCE, LENGTHS, np.array(PREVIOUS, np.int32)))[0]
    state, found = model.start(*tensors(LONGER, LENGTHS), WIDTH), []
    for parents, tokens in steps():
        step, state = model.step(state, *tensors(tokens, parents))
        found.append(step)
    return {name: whole, f"{name}/walk": tf.stack(found, 1)}


def search(model: LSTMAttention) -> dict[str, np.ndarray]:
    task = Seq2Seq(Task(), None, model)
    advance = tf.function(task.advance, autograph=False, reduce_retracing=True)

    def stepper(width: int) -> Any:
        source, lengths = tensors(SOURCE, LENGTHS)
        state = [task.begin({"source": source, "source_lengths": lengths}, width)]

        def step(tokens: np.ndarray, parents: np.ndarray) -> np.ndarray:
            log_probs, state[0] = advance(state[0], *tensors(tokens, parents))
            return log_probs.numpy()

        return step

    return searched(stepper)
