"""Access of a recording to the TensorFlow engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from toolkit.certify.stream import Arrays
from toolkit.data.loaders import tf as loaders
from toolkit.layers import tf as layers

if TYPE_CHECKING:
    from toolkit.training.tf import TensorFlowEngine


def prepare(threads: int) -> None:
    """Compute with this number of threads, among which sums are divided: it changes their rounding."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)


def learning_rate(engine: TensorFlowEngine) -> float:
    """Return the learning rate of the optimizer's last step."""
    return float(engine.optimizer.learning_rate.numpy())


def trained(engine: TensorFlowEngine) -> set[str]:
    """Return the canonical names of the parameters."""
    return {slot.name for slot in engine.slots if slot.variable.trainable}


def first_step(engine: TensorFlowEngine, batches: list[Any], lr: float, batches_done: int) -> Arrays:
    """Return the inputs of the next update: intermediates of the first batch, the loss, each gradient before clipping.

    The engine's state does not change.
    """
    before = layers.get_weights(engine.model)  # running statistics move in a forward pass
    slots = {id(slot.variable): slot for slot in engine.slots}

    def intermediates_of(batch: Any) -> Any:
        _, *lengths, intermediates = engine.task(batch, training=True)
        return intermediates | {f"lengths.{n}": value for n, value in enumerate(lengths)}

    # as graphs of the engine's own functions, as in training
    batch_spec, count = loaders.signature(engine.fields), tf.constant(len(batches), tf.int32)
    look = engine.strategy.compile(intermediates_of, batch_spec)
    differentiate = engine.strategy.compile(engine.gradients, batch_spec, tf.TensorSpec([], tf.int32))
    arrays: Arrays = {}
    sums: list[np.ndarray] = []
    total = 0.0
    for i, batch in enumerate(batches):
        engine.set_step(lr, batches_done + i)
        if not i:
            arrays |= {f"intermediate/{name}": value.numpy() for name, value in look(batch).items()}
        loss, gradients = differentiate(batch, count)
        total += float(loss)
        values = [gradient.numpy() for gradient in gradients]
        sums = values if not i else [a + b for a, b in zip(sums, values, strict=True)]
    arrays["loss"] = np.array(total)
    for variable, gradient in zip(engine.variables, sums, strict=True):
        slot = slots[id(variable)]
        arrays[f"gradient/{slot.name}"] = np.ascontiguousarray(slot.to_canonical(gradient))
    layers.set_weights(engine.model, before)
    return arrays
