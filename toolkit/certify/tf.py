"""What a recording needs of the TensorFlow engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from toolkit.certify.stream import Arrays
from toolkit.data.loaders import tf as loaders
from toolkit.layers import tf as layers


def prepare(threads: int) -> None:
    """Compute with so many threads: a sum is cut among them, and so rounded otherwise."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)


def learning_rate(engine: Any) -> float:
    """What the optimizer took for its last step."""
    return float(engine.optimizer.learning_rate.numpy())


def trained(engine: Any) -> set[str]:
    """Canonical names of the parameters."""
    return {slot.name for slot in engine.slots if slot.variable.trainable}


def first_step(engine: Any, batches: list[Any], lr: float, position: int) -> Arrays:
    """What the coming step is made of: the first batch's intermediates, the loss, each gradient before clipping.

    The engine is left as it was.
    """
    before = layers.get_weights(engine.model)  # running statistics move in a forward pass
    slots = {id(slot.variable): slot for slot in engine.slots}

    def look(batch: Any) -> Any:
        _, *lengths, intermediates = engine.task(batch, training=True)
        return intermediates | {f"lengths.{n}": value for n, value in enumerate(lengths)}

    # as graphs over the engine's own pieces, which is how they train
    batch_spec, parts = loaders.signature(engine.fields), tf.constant(len(batches), tf.int32)
    looked = engine.strategy.compile(look, batch_spec)
    differentiated = engine.strategy.compile(engine.gradients, batch_spec, tf.TensorSpec([], tf.int32))
    found: Arrays = {}
    sums: list[np.ndarray] = []
    total = 0.0
    for i, batch in enumerate(batches):
        engine.set_step(lr, position + i)
        if not i:
            found |= {f"intermediate/{name}": value.numpy() for name, value in looked(batch).items()}
        loss, gradients = differentiated(batch, parts)
        total += float(loss)
        arrays = [gradient.numpy() for gradient in gradients]
        sums = arrays if not i else [a + b for a, b in zip(sums, arrays, strict=True)]
    found["loss"] = np.array(total)
    for variable, gradient in zip(engine.variables, sums, strict=True):
        slot = slots[id(variable)]
        found[f"gradient/{slot.name}"] = np.ascontiguousarray(slot.to_canonical(gradient))
    layers.set_weights(engine.model, before)
    return found
