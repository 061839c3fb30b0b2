"""Parameters by canonical name: their shapes, how they are drawn at the start, which of them decay.

A canonical name is the name that the parameter has in the ``state_dict`` of the PyTorch twin, and the canonical layout
is PyTorch's; :mod:`toolkit.layers.tf` converts for Keras.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Constant:
    """Every element is ``value``."""

    value: float = 0.0


@dataclass(frozen=True)
class Uniform:
    """Uniform over ``[-bound, bound)``."""

    bound: float


@dataclass(frozen=True)
class Normal:
    """Normal around zero with this standard deviation."""

    std: float


@dataclass(frozen=True)
class Blocks:
    """The first axis falls into equal blocks, each of one value: the gates of a recurrent layer."""

    values: tuple[float, ...]


Distribution = Constant | Uniform | Normal | Blocks


@dataclass(frozen=True)
class Parameter:
    """What a model must have under one canonical name.

    Args:
        shape: in PyTorch's layout.
        init: the distribution that the first value is drawn from.
        trainable: False for buffers (running means).
    """

    shape: tuple[int, ...]
    init: Distribution
    trainable: bool = True


def glorot(fan_in: int, fan_out: int) -> Uniform:
    """Glorot & Bengio 2010, equation 16: keeps the variance of activations and gradients alike."""
    return Uniform(math.sqrt(6.0 / (fan_in + fan_out)))


def he(fan_in: int) -> Uniform:
    """He et al. 2015, equation 10, uniform form: keeps the variance through a ReLU."""
    return Uniform(math.sqrt(6.0 / fan_in))


def initial(parameters: Mapping[str, Parameter], seed: int) -> dict[str, np.ndarray]:
    """Draw the initial weights, the same on every backend.

    Each name has a random stream of its own, keyed by the seed and the name, so neither the order of the parameters nor
    a parameter added elsewhere changes what a name is given.

    Returns:
        canonical name -> float32 array.
    """
    return {name: _draw(parameter, seed, name) for name, parameter in parameters.items()}


def _draw(parameter: Parameter, seed: int, name: str) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, zlib.crc32(name.encode())], np.uint64)))
    match parameter.init:
        case Constant(value):
            values = np.full(parameter.shape, value)
        case Uniform(bound):
            values = (2.0 * generator.random(parameter.shape) - 1.0) * bound
        case Normal(std):
            values = generator.standard_normal(parameter.shape) * std
        case Blocks(blocks):
            values = np.repeat(blocks, parameter.shape[0] // len(blocks))
    return values.astype(np.float32)


def decays(name: str, shape: tuple[int, ...]) -> bool:
    """Whether weight decay applies to a parameter: to matrices and kernels, not to biases, scales and the like."""
    return len(shape) >= 2
