"""The TensorFlow twins: Keras optimizers with torch's arithmetic.

The stock Keras ones differ: AdamW adds epsilon before bias correction and squares the pieces of a repeated embedding
row before it sums them, SGD's velocity holds the learning rate, and clipping happens in each replica before the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from toolkit.layers.parameters import decays
from toolkit.layers.tf import Slot

from . import spec as specs
from .spec import check_state, moment_of


def clip(gradients: Sequence[tf.Tensor], max_norm: float | None) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Scale gradients so that their common norm is at most ``max_norm``, as ``torch.nn.utils.clip_grad_norm_`` does.

    Args:
        gradients: one a variable; with several devices, the sum over them.
        max_norm: None leaves them as they are.

    Returns:
        the gradients, and their norm before.
    """
    dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
    # l2_loss is half the sum of squares, in one pass
    norm = tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(gradient) for gradient in dense]))
    if max_norm is None:
        return dense, norm
    scale = tf.minimum(max_norm / (norm + 1e-6), 1.0)
    return [gradient * scale for gradient in dense], norm


class _Optimizer(keras.optimizers.Optimizer):
    """What the two share: dense gradients, scalars made once a step, decay by variable, moments by name."""

    def __init__(self, spec: Any) -> None:
        super().__init__(learning_rate=float(spec.lr))
        self.spec = spec
        self.moments: dict[str, list[keras.Variable]] = {}
        self.decayed: frozenset[int] = frozenset()
        self.summed = False  # whether the gradients are given as the sum over all devices, as clipping needs them

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self.moments = {moment: self.add_optimizer_variables(variables, moment) for moment in self.spec.moments}

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """Sum the gradients over the devices, unless they are ``summed``, and take a step. A slice of an embedding is
        made dense: its repeated rows are to be summed before they are squared."""
        super().apply([None if g is None else tf.convert_to_tensor(g) for g in grads], trainable_variables)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        scalars = self._scalars(tf.cast(learning_rate, tf.float64), trainable_variables[0].dtype)
        super()._backend_update_step(grads, trainable_variables, scalars)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """Called by :meth:`apply`, which is given this device's own gradients, unless they are ``summed``."""
        return grads_and_vars if self.summed else super()._all_reduce_sum_gradients(grads_and_vars)

    def _decays(self, variable: Any) -> bool:
        return self.spec.weight_decay > 0 and self._get_variable_index(variable) in self.decayed

    def _moment(self, name: str, variable: Any) -> tf.Tensor:
        return self.moments[name][self._get_variable_index(variable)].value.handle

    def _scalars(self, lr: tf.Tensor, dtype: str) -> dict[str, tf.Tensor]:
        raise NotImplementedError


class AdamW(_Optimizer):
    """``torch.optim.AdamW``.

    TensorFlow's fused kernel adds epsilon to the uncorrected root, so it is handed an epsilon and a learning rate that
    hold the corrections. In float32 it takes ``1 - float32(beta)`` where torch takes ``float32(1 - beta)``; for
    beta 0.999 this makes the second moment smaller by one constant factor, 1 - 1.3e-5, which the two also hold: the
    weights agree within rounding.
    """

    def scale(self, dtype: str) -> float:
        """The factor of the second moments."""
        number, beta = np.dtype(dtype).type, self.spec.betas[1]
        return (1 - float(number(beta))) / float(number(1 - beta))

    def _scalars(self, lr: tf.Tensor, dtype: str) -> dict[str, tf.Tensor]:
        t = tf.cast(self._iterations + 1, tf.float64)
        beta1, beta2 = (tf.constant(beta, tf.float64) for beta in self.spec.betas)
        root = tf.sqrt((1 - tf.pow(beta2, t)) * self.scale(dtype))
        return {
            "lr": tf.cast(lr * root / (1 - tf.pow(beta1, t)), dtype),
            "eps": tf.cast(self.spec.eps * root, dtype),
            "keep": tf.cast(1 - lr * self.spec.weight_decay, dtype),
        }

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: dict[str, tf.Tensor]) -> None:
        if self._decays(variable):
            variable.assign(variable * learning_rate["keep"])
        zero = tf.zeros([], variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._moment("exp_avg", variable),
            v=self._moment("exp_avg_sq", variable),
            beta1_power=zero,  # the bias corrections are in lr and epsilon
            beta2_power=zero,
            lr=learning_rate["lr"],
            beta1=tf.constant(self.spec.betas[0], variable.dtype),
            beta2=tf.constant(self.spec.betas[1], variable.dtype),
            epsilon=learning_rate["eps"],
            grad=tf.cast(gradient, variable.dtype),
        )


class SGD(_Optimizer):
    """``torch.optim.SGD``: the buffer holds gradients, not steps, so a schedule does not bend it."""

    def _scalars(self, lr: tf.Tensor, dtype: str) -> dict[str, tf.Tensor]:
        return {"lr": tf.cast(lr, dtype)}

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: dict[str, tf.Tensor]) -> None:
        gradient = tf.cast(gradient, variable.dtype)
        if self._decays(variable):
            gradient = gradient + self.spec.weight_decay * variable
        if not self.spec.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate["lr"], delta=gradient)
            return
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self._moment("momentum_buffer", variable),
            lr=learning_rate["lr"],
            grad=gradient,
            momentum=tf.constant(self.spec.momentum, variable.dtype),
            use_nesterov=self.spec.nesterov,
        )


def build(spec: specs.AdamW | specs.SGD, slots: Sequence[Slot]) -> keras.optimizers.Optimizer:
    """Make the optimizer with its variables; call it in the strategy's scope.

    The loop assigns ``optimizer.learning_rate`` before each step: a variable, so nothing is traced again.

    Args:
        spec: which optimizer.
        slots: ``canonical_variables(model)``; those that are not trained are left out.
    """
    trained = _trained(slots)
    optimizer = {specs.AdamW: AdamW, specs.SGD: SGD}[type(spec)](spec)
    optimizer.build([slot.variable for slot in trained])
    optimizer.decayed = frozenset(i for i, slot in enumerate(trained) if decays(slot.name, _shape(slot)))
    return optimizer


def get_state(optimizer: Any, slots: Sequence[Slot]) -> dict[str, np.ndarray]:
    """The optimizer's state under canonical names, in canonical layouts."""
    state = {
        f"{moment}.{slot.name}": np.ascontiguousarray(slot.to_canonical(variable.numpy()))
        for moment, variables in optimizer.moments.items()
        for slot, variable in zip(_trained(slots), variables, strict=True)
    }
    state["step"] = np.array([int(optimizer.iterations.numpy())], np.int64)
    if "exp_avg_sq" in optimizer.moments:
        state["exp_avg_sq_scale"] = np.array([_scale(optimizer)])
    return state


def set_state(optimizer: Any, slots: Sequence[Slot], state: Mapping[str, np.ndarray]) -> None:
    """Put a state that :func:`get_state` of either backend gave into the optimizer.

    Raises:
        ConfigError: names or shapes do not fit.
    """
    trained = _trained(slots)
    check_state(state, {slot.name: _shape(slot) for slot in trained}, optimizer.spec.moments)
    for moment, variables in optimizer.moments.items():
        for slot, variable in zip(trained, variables, strict=True):
            value = moment_of(state, moment, slot.name, _scale(optimizer))
            variable.assign(np.ascontiguousarray(slot.to_keras(value)))
    optimizer.iterations.assign(int(state["step"][0]))


def _scale(optimizer: Any) -> float:
    """What its second moments are multiplied with; see :class:`AdamW`."""
    if not isinstance(optimizer, AdamW):
        return 1.0
    return optimizer.scale(optimizer.moments["exp_avg_sq"][0].dtype)


def _trained(slots: Sequence[Slot]) -> list[Slot]:
    return [slot for slot in slots if slot.variable.trainable]


def _shape(slot: Slot) -> tuple[int, ...]:
    return slot.to_canonical(slot.variable.numpy()).shape
