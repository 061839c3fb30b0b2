"""Trainings with the TensorFlow optimizers, and what only these do."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.workers.optimizers import cases
from tests.workers.optimizers.cases import Arrays, Case
from toolkit.config.build import build
from toolkit.layers.tf import Slot
from toolkit.optimizers import tf as optimizers
from toolkit.optimizers.adamw.spec import AdamW
from toolkit.optimizers.sgd.spec import SGD


def same(array: Any) -> Any:
    return array


class Training:
    """A training of a case; every layout differs from torch's."""

    def __init__(self, case: Case, weights: Arrays) -> None:
        keras.config.set_floatx(case.kind)
        self._kind = case.kind
        self._slots = [
            Slot(n, keras.Variable(a.T.astype(case.kind)), np.transpose, np.transpose) for n, a in weights.items()
        ]
        # a variable that is not trained has no state, and the order of the gradients is the caller's
        frozen = keras.Variable(np.zeros(3, case.kind), trainable=False)
        self._slots.insert(1, Slot("norm.running_mean", frozen, np.transpose, np.transpose))
        self._optimizer = build(case.spec, "tf", self._slots)
        self._trained = [slot for slot in self._slots if slot.variable.trainable]
        variables = [slot.variable for slot in self._trained][::-1]

        @tf.function(autograph=False)
        def step(gradients: list[tf.Tensor]) -> tf.Tensor:
            gradients, norm = optimizers.clip(gradients, case.clip or None)
            self._optimizer.apply(gradients, variables)
            return norm

        self._step = step

    def step(self, rate: float, gradients: Arrays) -> None:
        self._optimizer.learning_rate.assign(rate)
        self._step([tf.constant(gradients[slot.name].T.astype(self._kind)) for slot in self._trained[::-1]])
        assert self._step.experimental_get_tracing_count() == 1

    def weights(self) -> Arrays:
        return {slot.name: np.ascontiguousarray(slot.variable.numpy().T) for slot in self._trained}

    def state(self) -> Arrays:
        return optimizers.get_state(self._optimizer, self._slots)

    def load(self, state: Arrays) -> None:
        optimizers.set_state(self._optimizer, self._slots, state)


def trainings(arrays: Arrays) -> Arrays:
    return cases.compute(Training, arrays)


def decay_alone(arrays: Arrays) -> Arrays:
    """A step without gradients."""
    slots = [Slot(name, keras.Variable(array), same, same) for name, array in arrays.items()]
    optimizer = build(AdamW(lr=0.5, weight_decay=0.5), "tf", slots)
    variables = [slot.variable for slot in slots]
    optimizer.apply([tf.zeros(variable.shape) for variable in variables], variables)
    return {slot.name: slot.variable.numpy() for slot in slots}


def extras(arrays: Arrays) -> Arrays:
    """Three steps of each optimizer: plain, on two replicas that share the gradient, and with repeated sparse rows."""
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    out: Arrays = {}
    for number, spec in enumerate((AdamW(), SGD(nesterov=True, weight_decay=0.1), SGD(momentum=0.0))):
        plain, *replicas = _plain(spec, **arrays), *_replicas(spec, **arrays)
        sparse = _sparse(spec, **arrays)
        out |= {f"{number}/plain": plain, f"{number}/replicas": np.stack(replicas), f"{number}/sparse": sparse}
    return out


def _optimizer(spec: AdamW | SGD, start: np.ndarray) -> tuple[Any, keras.Variable]:
    slot = Slot("w", keras.Variable(start), same, same)
    return build(spec, "tf", [slot]), slot.variable


def _plain(spec: AdamW | SGD, start: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    optimizer, variable = _optimizer(spec, start)
    for _ in range(3):
        optimizer.apply([tf.constant(gradient)], [variable])
    return variable.numpy()


def _replicas(spec: AdamW | SGD, start: np.ndarray, gradient: np.ndarray) -> list[np.ndarray]:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        optimizer, variable = _optimizer(spec, start)

    def replica() -> None:
        rank = tf.distribute.get_replica_context().replica_id_in_sync_group
        share = 0.25 + 0.5 * tf.cast(rank, tf.float32)
        optimizer.apply([tf.constant(gradient) * share], [variable])

    step = tf.function(lambda: strategy.run(replica), autograph=False)
    for _ in range(3):
        step()
    assert int(optimizer.iterations.numpy()) == 3
    return [value.numpy() for value in strategy.experimental_local_results(variable.value)]


def _sparse(spec: AdamW | SGD, start: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    optimizer, variable = _optimizer(spec, start)
    rows = [0, 1, 1, 2, 3, 1]
    parts = np.stack([gradient[row] * (1 / 3 if row == 1 else 1) for row in rows])
    for _ in range(3):
        slices = tf.IndexedSlices(tf.constant(parts), tf.constant(rows), tf.constant(start.shape))
        optimizer.apply([slices], [variable])
    return variable.numpy()


def fit(arrays: Arrays) -> Arrays:
    """Weights before and after a training by Keras."""
    model = keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(2)])
    slots = [Slot(variable.name, variable, same, same) for variable in model.trainable_variables]
    model.compile(optimizer=build(AdamW(), "tf", slots), loss="mse")
    before = {f"before/{slot.name}": slot.variable.numpy() for slot in slots}
    model.fit(arrays["inputs"], arrays["targets"], verbose=0)
    return before | {f"after/{slot.name}": slot.variable.numpy() for slot in slots}
