"""Losses of the TensorFlow translation task, and its methods on a stub model.

The logits of the stub are a table's rows for the previous tokens plus a term that depends on the source.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.workers import stock
from toolkit.data.columns import text
from toolkit.data.loaders.tf import signature
from toolkit.data.split import EXAMPLE
from toolkit.tasks.seq2seq.spec import Seq2Seq as Spec
from toolkit.tasks.seq2seq.tf import Seq2Seq

FIELDS = EXAMPLE | text.FIELDS["input"] | text.FIELDS["target"]


class Model(keras.Model):
    def __init__(self, table: Any) -> None:
        super().__init__(autocast=False)
        self.table = self.add_weight(shape=table.shape, dtype=table.dtype.name, trainable=True, name="table")
        self.table.assign(table)

    def call(self, source: Any, source_lengths: Any, previous: Any, training: bool = False) -> Any:
        table = self.table.value
        seen = tf.cast(tf.reduce_sum(source, 1), table.dtype)
        logits = tf.gather(table, previous) + seen[:, None, None] * table[0]
        return logits * (2 if training else 1), {"previous": previous}

    def start(self, source: Any, source_lengths: Any, width: int) -> dict[str, Any]:
        return {"seen": tf.repeat(tf.reduce_sum(source, 1), width)}

    def step(self, state: dict[str, Any], tokens: Any, parents: Any) -> Any:
        table, seen = self.table.value, tf.gather(state["seen"], parents)
        return tf.gather(table, tokens) + tf.cast(seen, table.dtype)[:, None] * table[0], {"seen": seen}


def compute(given: dict[str, Any]) -> dict[str, Any]:
    """Everything, of cases ``NAME/...``."""
    out: dict[str, Any] = {}
    for name in sorted({key.split("/")[0] for key in given}):
        batch = {k.split("/")[1]: tf.constant(v) for k, v in given.items() if k.startswith(name + "/")}
        table, smoothing = batch.pop("table"), float(batch.pop("smoothing"))
        for kind in ("float32", "float64", "bfloat16"):
            task = Seq2Seq(Spec(label_smoothing=smoothing), None, Model(tf.cast(table, kind)))
            out |= {f"{name}/{kind}/{key}": value for key, value in methods(task, batch, kind).items()}
    return out | stock_fit(table, smoothing, batch) | {"fit/name": np.array(name)}


def methods(task: Seq2Seq, batch: dict[str, Any], kind: str) -> dict[str, Any]:
    @tf.function(input_signature=[signature(FIELDS)], autograph=False)
    def compute(batch: dict[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            loss = task.loss(batch)
        gradient = tf.convert_to_tensor(tape.gradient(loss, task.model.table.value))
        return loss, tf.cast(gradient, loss.dtype), task.evaluate(batch), task(batch)[1]["previous"]

    loss, gradient, found, previous = compute(batch)
    assert loss.dtype == (tf.float64 if kind == "float64" else tf.float32)
    state = task.begin({name: batch[name] for name in ("source", "source_lengths")}, 2)
    rows = tf.range(2 * len(batch["source"]))
    for tokens in (0 * rows, rows % 7):
        log_probs, state = task.advance(state, tokens, rows // 2 * 2)
    assert log_probs.dtype == tf.float32
    out = {"loss": loss, "gradient": gradient, "previous": previous, "log_probs": log_probs}
    return out | {f"evaluate/{k}": v for k, v in found.items()}


def stock_fit(table: Any, smoothing: float, batch: dict[str, Any]) -> dict[str, Any]:
    """Under Keras' ``fit``: the raw loss of each batch, and a step that was clipped."""
    return stock.fit(Seq2Seq(Spec(label_smoothing=smoothing), None, Model(tf.cast(table, "float32"))), batch)
