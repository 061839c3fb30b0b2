"""Shared parts of the TensorFlow optimizers, which are Keras optimizers with torch's arithmetic.

The stock Keras optimizers differ: AdamW adds epsilon before the bias correction and squares the pieces of a repeated
embedding row before it sums them, the velocity of SGD holds the learning rate, and each replica clips before the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from toolkit.layers.parameters import decays
from toolkit.layers.tf import Slot
from toolkit.optimizers.state import check_state, moment_of


def clip(gradients: Sequence[tf.Tensor], max_norm: float | None) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Scale gradients so that their common norm is at most ``max_norm``, as ``torch.nn.utils.clip_grad_norm_`` does.

    Args:
        gradients: one for each variable; with several devices, the sum over them.
        max_norm: None leaves them as they are.

    Returns:
        the gradients, and their norm before clipping.
    """
    dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
    # l2_loss is half the sum of squares, in one pass
    norm = tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(gradient) for gradient in dense]))
    if max_norm is None:
        return dense, norm
    scale = tf.minimum(max_norm / (norm + 1e-6), 1.0)
    return [gradient * scale for gradient in dense], norm


class Optimizer(keras.optimizers.Optimizer):
    """Base of the twins: dense gradients, scalars computed once a step, decay by variable, moments by name.

    Create it in the strategy's scope. The loop assigns ``learning_rate`` before each step: a variable, so nothing is
    traced again. A subclass has ``_scalars`` and ``update_step``.

    Args:
        spec: has ``lr``, ``weight_decay`` and ``moments``.
        slots: ``canonical_variables(model)``; untrained ones are ignored.
        summed: the gradients that it gets are already summed over all devices, as clipping requires.
    """

    def __init__(self, spec: Any, slots: Sequence[Slot], summed: bool = False) -> None:
        super().__init__(learning_rate=float(spec.lr))
        self.spec, self.summed = spec, summed
        self.moments: dict[str, list[keras.Variable]] = {}
        trained = _trained(slots)
        self.build([slot.variable for slot in trained])
        self.decayed = frozenset(i for i, slot in enumerate(trained) if decays(_shape(slot)))

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self.moments = {moment: self.add_optimizer_variables(variables, moment) for moment in self.spec.moments}

    def scale(self) -> float:
        """Return the factor by which the second moments are multiplied (``optimizers/state.py``)."""
        return 1.0

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """Sum the gradients over the devices, unless they are ``summed``, and take a step.

        A slice of an embedding is made dense: its repeated rows are to be summed before they are squared.
        """
        super().apply([None if g is None else tf.convert_to_tensor(g) for g in grads], trainable_variables)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        scalars = self._scalars(tf.cast(learning_rate, tf.float64), trainable_variables[0].dtype)
        super()._backend_update_step(grads, trainable_variables, scalars)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """Sum the gradients of the devices for :meth:`apply`, unless they are already ``summed``."""
        return grads_and_vars if self.summed else super()._all_reduce_sum_gradients(grads_and_vars)

    def _decays(self, variable: Any) -> bool:
        return self.spec.weight_decay > 0 and self._get_variable_index(variable) in self.decayed

    def _moment(self, name: str, variable: Any) -> tf.Tensor:
        return self.moments[name][self._get_variable_index(variable)].value.handle

    def _scalars(self, lr: tf.Tensor, dtype: str) -> dict[str, tf.Tensor]:
        """Return the scalars that ``update_step`` gets in place of a learning rate.

        Args:
            lr: float64.
            dtype: of the variables.
        """
        raise NotImplementedError


def get_state(optimizer: Optimizer, slots: Sequence[Slot]) -> dict[str, np.ndarray]:
    """Return the optimizer's state under canonical names, in canonical layouts."""
    state = {
        f"{moment}.{slot.name}": np.ascontiguousarray(slot.to_canonical(variable.numpy()))
        for moment, variables in optimizer.moments.items()
        for slot, variable in zip(_trained(slots), variables, strict=True)
    }
    state["step"] = np.array([int(optimizer.iterations.numpy())], np.int64)
    if "exp_avg_sq" in optimizer.moments:
        state["exp_avg_sq_scale"] = np.array([optimizer.scale()])
    return state


def set_state(optimizer: Optimizer, slots: Sequence[Slot], state: Mapping[str, np.ndarray]) -> None:
    """Load a state that :func:`get_state` of either backend returned.

    Raises:
        ValueError: names or shapes differ from the optimizer's.
    """
    trained = _trained(slots)
    check_state(state, {slot.name: _shape(slot) for slot in trained}, optimizer.spec.moments)
    for moment, variables in optimizer.moments.items():
        for slot, variable in zip(trained, variables, strict=True):
            value = moment_of(state, moment, slot.name, optimizer.scale())
            variable.assign(np.ascontiguousarray(slot.to_keras(value)))
    optimizer.iterations.assign(int(state["step"][0]))


def _trained(slots: Sequence[Slot]) -> list[Slot]:
    return [slot for slot in slots if slot.variable.trainable]


def _shape(slot: Slot) -> tuple[int, ...]:
    return slot.to_canonical(slot.variable.numpy()).shape
