"""Parameters by canonical name: shapes, initial distributions, weight decay.

The canonical name of a parameter is its name in the ``state_dict`` of the PyTorch twin, and the canonical layout is
PyTorch's; :mod:`toolkit.layers.tf` converts for Keras.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Constant:
    """A constant: every element is ``value``."""

    value: float = 0.0


@dataclass(frozen=True)
class Uniform:
    """The uniform distribution over ``[-bound, bound)``."""

    bound: float


@dataclass(frozen=True)
class Normal:
    """The normal distribution around zero with standard deviation ``std``."""

    std: float


@dataclass(frozen=True)
class Blocks:
    """Equal blocks along the first axis, one value per block: the gates of a recurrent layer."""

    values: tuple[float, ...]


Distribution = Constant | Uniform | Normal | Blocks


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer that a model must have under a canonical name.

    Args:
        shape: in PyTorch's layout.
        init: the distribution of the initial value.
        trainable: False for buffers (running means).
    """

    shape: tuple[int, ...]
    init: Distribution
    trainable: bool = True


def glorot(fan_in: int, fan_out: int) -> Uniform:
    """Return the distribution of Glorot & Bengio 2010, equation 16: keeps the variance of activations and gradients."""
    return Uniform(math.sqrt(6.0 / (fan_in + fan_out)))


def he(fan_in: int) -> Uniform:
    """Return the distribution of He et al. 2015, equation 10, uniform form: keeps the variance through a ReLU."""
    return Uniform(math.sqrt(6.0 / fan_in))


def initial(parameters: Mapping[str, Parameter], seed: int) -> dict[str, np.ndarray]:
    """Draw the initial weights, the same on every backend.

    The random stream of each parameter is keyed by the seed and its name, so neither the order of the parameters nor
    an added parameter changes the values of another.

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


def decays(shape: tuple[int, ...]) -> bool:
    """Tell whether weight decay applies to a parameter: to matrices and kernels, not to biases and scales."""
    return len(shape) >= 2
