"""Operations on a whole TensorFlow model: weights by canonical name, dropout keys, shared batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from toolkit.layers import spec as shared
from toolkit.layers.dropout.tf import Dropout
from toolkit.layers.normalization.tf import BatchNorm

FIRST = tf.VariableAggregation.ONLY_FIRST_REPLICA  # for values that are equal on all devices


def bind(model: keras.layers.Layer, seed: int) -> None:
    """Set the key of every dropout of ``model`` from the seed and the layer's canonical path, and a shared step."""
    model.dropout_step = tf.Variable(0, trainable=False, dtype=tf.int64, name="dropout_step")
    for path, layer in _sublayers(model):
        if isinstance(layer, Dropout):
            layer.base = shared.dropout_base(seed, path)
            layer.step = model.dropout_step


def set_step(model: keras.layers.Layer, step: int | tf.Tensor) -> None:
    """Set the number of the next micro-batch of the run in every dropout of ``model``; call :func:`bind` first."""
    model.dropout_step.assign(step)


def share(model: keras.layers.Layer) -> None:
    """Prepare ``model`` for batches that several devices share.

    Call this in the strategy's scope. Each device then calls :func:`set_rows` before every batch.
    """

    def variable(name: str, dtype: tf.DType) -> tf.Variable:  # with a value on each device
        kind = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": FIRST}
        return tf.Variable(0, trainable=False, dtype=dtype, name=name, **kind)

    model.rows = variable("rows_before", tf.int64), variable("rows_present", tf.int64)
    for _, layer in _sublayers(model):
        if isinstance(layer, (Dropout, BatchNorm)):
            layer.rows = model.rows


def set_rows(model: keras.layers.Layer, before: tf.Tensor, present: tf.Tensor) -> None:
    """Set which rows of the whole batch the calling device gets next.

    Args:
        before: number of rows before those of this device; dropout masks are cut from the whole batch's.
        present: False if the device has no rows and computes a row that does not count.
    """
    for variable, value in zip(model.rows, (before, present), strict=True):
        variable.assign(tf.cast(value, tf.int64))


def adopt(model: keras.layers.Layer, encoder: keras.layers.Layer) -> Callable[..., Any]:
    """Register the children of ``encoder`` as children of ``model``.

    The encoder then adds no level to canonical names: ``blocks.0``, not ``encoder.blocks.0``. Initial weights, dropout
    masks and checkpoints of an encoder are the same under every head.

    Args:
        model: the layer that computes with ``encoder``.
        encoder: a layer with no variables of its own, only children.

    Returns:
        the forward pass of ``encoder``.

    Raises:
        ValueError: ``encoder`` has variables of its own, or ``model`` has a child of the same name.
    """
    own = [name for name, *_ in _leaves(encoder)]
    if own:
        raise ValueError(f"{type(encoder).__name__} has variables of its own: {', '.join(own)}")
    children = dict(_children(encoder))
    if taken := children.keys() & dict(_children(model)).keys():
        raise ValueError(f"{type(model).__name__} already has {', '.join(sorted(taken))}")
    for name, child in children.items():
        setattr(model, name, child)
    return encoder.call


@dataclass(frozen=True)
class Slot:
    """A variable with its canonical name and the conversions between Keras's layout and the canonical one."""

    name: str
    variable: keras.Variable
    to_keras: Callable[[np.ndarray], np.ndarray]
    to_canonical: Callable[[np.ndarray], np.ndarray]


def canonical_variables(model: keras.layers.Layer) -> list[Slot]:
    """List every variable of ``model`` with its canonical name: the path of attributes, then PyTorch's leaf name.

    Raises:
        TypeError: no rule covers a variable.
    """
    slots = [
        Slot(f"{path}.{leaf}" if path else leaf, variable, to_keras, to_canonical)
        for path, layer in _sublayers(model)
        for leaf, variable, to_keras, to_canonical in _leaves(layer)
    ]
    unnamed = {id(v): v.path for v in model.variables}
    for slot in slots:
        unnamed.pop(id(slot.variable), None)
    if unnamed:
        raise TypeError(f"no canonical name for {', '.join(unnamed.values())}")
    return slots


def get_weights(model: keras.layers.Layer) -> dict[str, np.ndarray]:
    """Copy the variables of ``model``, by canonical name and in the canonical layout."""
    return {
        slot.name: np.array(slot.to_canonical(slot.variable.numpy()), order="C") for slot in canonical_variables(model)
    }


def set_weights(model: keras.layers.Layer, weights: Mapping[str, np.ndarray]) -> None:
    """Overwrite every variable of ``model``.

    Raises:
        ValueError: a name is missing or unexpected, or a shape differs.
    """
    slots = canonical_variables(model)
    shared.match(weights, {slot.name: slot.to_canonical(slot.variable.numpy()).shape for slot in slots})
    for slot in slots:
        slot.variable.assign(np.ascontiguousarray(slot.to_keras(weights[slot.name])))


Leaf = tuple[str, keras.Variable, Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]


def _leaves(layer: keras.layers.Layer) -> Iterator[Leaf]:
    """Yield the variables of one layer with their conversions; the toolkit's layers have PyTorch's layout already."""
    kinds = keras.layers
    if isinstance(layer, kinds.Dense):
        yield "weight", layer.kernel, *_transposed(1, 0)
    elif isinstance(layer, kinds.DepthwiseConv1D):  # before Conv1D: (channels, 1, k) <-> (k, channels, 1)
        yield "weight", layer.kernel, *_transposed(2, 0, 1)
    elif isinstance(layer, kinds.Conv1D):  # (out, in, k) <-> (k, in, out)
        yield "weight", layer.kernel, *_transposed(2, 1, 0)
    elif isinstance(layer, kinds.Conv2D):  # (out, in, h, w) <-> (h, w, in, out)
        yield "weight", layer.kernel, *_transposed(2, 3, 1, 0)
    else:
        for name, value in vars(layer).items():
            if isinstance(value, keras.Variable) and not name.startswith("_"):
                yield name, value, *_transposed(*range(len(value.shape)))
    if getattr(layer, "use_bias", False):
        yield "bias", layer.bias, *_transposed(0)


def _transposed(*axes: int) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    back = np.argsort(axes)
    return lambda array: array.transpose(axes), lambda array: array.transpose(back)


def _sublayers(layer: keras.layers.Layer, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield ``layer`` and all layers below it with their attribute paths; lists count from 0 as ``nn.ModuleList``."""
    yield path, layer
    for name, child in _children(layer):
        below = f"{path}.{name}" if path else name
        if isinstance(child, keras.layers.Layer):
            yield from _sublayers(child, below)
        else:
            for number, item in enumerate(child):
                if isinstance(item, keras.layers.Layer):
                    yield from _sublayers(item, f"{below}.{number}")


def _children(layer: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer | list[Any]]]:
    """Yield the layers and the lists of layers that ``layer`` holds, by attribute."""
    for name, value in vars(layer).items():
        items = value if isinstance(value, list) else [value]
        if not name.startswith("_") and any(isinstance(item, keras.layers.Layer) for item in items):
            yield name, value
