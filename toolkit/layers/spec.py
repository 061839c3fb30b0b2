"""Shared by the layers of both twins: parameters with their initial distributions, constants, and the dropout hash.

Functions that return parameters name them as the PyTorch layer does; :func:`under` adds a prefix.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from toolkit.layers.parameters import Blocks, Constant, Normal, Parameter, Uniform, glorot, he

NORM_EPSILON = 1e-5  # of layer and batch normalization, PyTorch's value (Keras has 1e-3)
BATCH_NORM_MOMENTUM = 0.1  # weight of the new batch in the running statistics, as in PyTorch
# attention score of a padded key: vanishes in the softmax, but is finite in float16 and in a row of padding
MASKED_SCORE = -3e4

Parameters = dict[str, Parameter]


def under(prefix: str, *groups: Parameters) -> Parameters:
    """Prefix the names of the parameters in ``groups``."""
    return {f"{prefix}.{name}": parameter for group in groups for name, parameter in group.items()}


def dense(inputs: int, outputs: int, bias: bool = True) -> Parameters:
    """List the parameters of ``y = x W^T + b``; W Glorot uniform, b zero."""
    weight = {"weight": Parameter((outputs, inputs), glorot(inputs, outputs))}
    return weight | ({"bias": Parameter((outputs,), Constant(0.0))} if bias else {})


def attention(dim: int) -> Parameters:
    """List the parameters of multi-head attention; keys have no bias, which would cancel in the softmax."""
    parameters = under("key", dense(dim, dim, bias=False))
    for name in ("query", "value", "out"):
        parameters |= under(name, dense(dim, dim))
    return parameters


def feed_forward(dim: int, inner: int) -> Parameters:
    """List the parameters of a normalization and two linear layers."""
    return under("norm", layer_norm(dim)) | under("linear1", dense(dim, inner)) | under("linear2", dense(inner, dim))


def embedding(vocabulary: int, dim: int) -> Parameters:
    """List the parameters of an embedding; normal with variance ``1 / dim``, which also suits an output matrix."""
    return {"weight": Parameter((vocabulary, dim), Normal(dim**-0.5))}


def conv2d(inputs: int, outputs: int, kernel: int, bias: bool = True) -> Parameters:
    """List the parameters of a convolution with a square kernel before a ReLU; He uniform, bias zero."""
    weight = {"weight": Parameter((outputs, inputs, kernel, kernel), he(inputs * kernel * kernel))}
    return weight | ({"bias": Parameter((outputs,), Constant(0.0))} if bias else {})


def depthwise(channels: int, kernel: int) -> Parameters:
    """List the parameters of a depthwise convolution without bias, before a normalization; Glorot uniform."""
    return {"weight": Parameter((channels, 1, kernel), glorot(kernel, kernel))}


def layer_norm(channels: int) -> Parameters:
    """List the parameters of layer normalization: scale one, shift zero."""
    return {"weight": Parameter((channels,), Constant(1.0)), "bias": Parameter((channels,), Constant(0.0))}


def batch_norm(channels: int) -> Parameters:
    """List the parameters of batch normalization: scale one, shift zero, running mean zero, running variance one."""
    return layer_norm(channels) | {
        "running_mean": Parameter((channels,), Constant(0.0), trainable=False),
        "running_var": Parameter((channels,), Constant(1.0), trainable=False),
    }


def subsample(inputs: int, channels: int, outputs: int, bias: bool = True) -> Parameters:
    """List the parameters of the convolutional front end (see :func:`subsampled`).

    The biases are uniform within ``1 / sqrt(fan in)``. With zero biases a silent or masked stretch of features would
    become a zero vector, whose layer normalization multiplies gradients by ``1 / sqrt(epsilon)``.

    Args:
        bias: True if the projection has a bias, which has no effect before a batch norm.
    """
    flat = channels * int(subsampled(inputs))
    parameters = (
        under("conv1", conv2d(1, channels, 3))
        | under("conv2", conv2d(channels, channels, 3))
        | under("out", dense(flat, outputs, bias))
    )
    for name, fan_in in (("conv1.bias", 9), ("conv2.bias", 9 * channels), ("out.bias", flat)):
        if name in parameters:
            parameters[name] = Parameter(parameters[name].shape, Uniform(fan_in**-0.5))
    return parameters


def lstm(inputs: int, units: int) -> Parameters:
    """List the parameters of an LSTM layer in one direction (Hochreiter & Schmidhuber 1997).

    The gates are in the order input, forget, cell, output. Input weights are Glorot uniform; recurrent weights uniform
    with variance ``1 / units``, which keeps the norm of the state as an orthogonal matrix would; the bias is one for
    the forget gate (Jozefowicz et al. 2015), else zero. PyTorch has two biases, of which only the sum has an effect:
    two trained biases would move twice as fast under Adam.
    """
    return {
        "weight_ih_l0": Parameter((4 * units, inputs), glorot(inputs, units)),
        "weight_hh_l0": Parameter((4 * units, units), Uniform(float(np.sqrt(3.0 / units)))),
        "bias_ih_l0": Parameter((4 * units,), Blocks((0.0, 1.0, 0.0, 0.0))),
    }


def subsampled(length: Any) -> Any:
    """Return the length after two convolutions of width 3 and stride 2 without padding.

    No output depends on padding, so an utterance has the same outputs alone and in a padded batch.

    Args:
        length: int, numpy array or tensor of either framework, at least 0.
    """
    out = (length - 3) // 4
    return (out + abs(out)) // 2  # not below zero, in arithmetic that all of these types have


def positions(longest: int, dim: int) -> np.ndarray:
    """Compute sinusoids of the relative positions ``longest - 1, ..., -longest`` (Vaswani et al. 2017, section 3.5).

    The relative position is query minus key. A sequence of length ``n`` needs rows ``longest - n`` to ``longest + n``.
    No pair has the last of them, but with an even number of rows the scores are shifted without a copy.

    Returns:
        ``(2 * longest, dim)`` float32, computed in float64.
    """
    return sinusoids(np.arange(longest - 1, -longest - 1, -1), dim)


def sinusoids(positions: np.ndarray, dim: int) -> np.ndarray:
    """Compute ``(positions, dim)`` float32: sines at even places, cosines at odd ones (Vaswani et al. 2017, 3.5)."""
    angles = positions[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(positions), dim).astype(np.float32)


def hash32(x: np.ndarray) -> np.ndarray:
    """Hash 32-bit words by a bijection that scatters neighbours (the low-bias hash "prospector" by C. Wellons).

    Both twins compute the same bits.

    Args:
        x: uint32.
    """
    x = np.asarray(x, np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def dropout_base(seed: int, path: str) -> int:
    """Compute the part of a dropout's key that does not depend on the step.

    Args:
        path: the canonical path of the layer in its model.
    """
    return (seed ^ zlib.crc32(path.encode())) & 0xFFFFFFFF


def dropout_key(base: int, step: int) -> int:
    """Compute the key of one step: ``hash32(base ^ hash32(step))``."""
    return int(hash32(np.uint32(base) ^ hash32(np.array([step & 0xFFFFFFFF])))[0])


def dropout_threshold(rate: float) -> int:
    """Return the number that the 16 bits of a dropped element are below."""
    return min(round(rate * 2**16), 2**16 - 1)


def dropout_mask(elements: int, key: int, rate: float, first: int = 0) -> np.ndarray:
    """Compute the mask of the twins' dropout: a hash of (element, key), one word for two neighbours.

    Args:
        elements: number of elements of the tensor, counted with the channels last.
        key: result of :func:`dropout_key`.
        rate: probability of dropping an element, in steps of 1 / 65536.
        first: number of elements of the whole batch before those of this device.

    Returns:
        ``(elements,)`` bool, True = kept.
    """
    words = hash32(hash32(np.arange(first // 2, (first + elements + 1) // 2)) ^ np.uint32(key))
    return words.astype("<u4").view("<u2")[first % 2 :][:elements] >= dropout_threshold(rate)


def match(weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that weights have exactly the names and shapes of a model.

    Args:
        weights: to be loaded, by canonical name.
        shapes: those of the model, by canonical name.

    Raises:
        ValueError: with the first weights that are missing, unexpected or of another shape.
    """
    problems = [f"lacks {name}" for name in shapes if name not in weights]
    problems += [f"has {name}, which the model does not have" for name in weights if name not in shapes]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"the weights are not this model's: {'; '.join(problems[:5])}{more}")
