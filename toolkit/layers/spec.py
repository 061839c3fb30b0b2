"""What the layers of both twins share: their parameters and how these start, and the hash that dropout draws from.

Every function that returns parameters names them as the PyTorch layer does; :func:`under` puts them below a prefix.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.layers.parameters import Blocks, Constant, Normal, Parameter, Uniform, glorot, he

if TYPE_CHECKING:
    from toolkit.config.schema import Run

NORM_EPSILON = 1e-5  # of layer and batch normalisation, PyTorch's value (Keras has 1e-3)
BATCH_NORM_MOMENTUM = 0.1  # weight of the new batch in the running statistics, PyTorch's meaning
# attention score of a padded key: large enough to vanish in the softmax, finite for a row of them and in float16
MASKED_SCORE = -3e4

Parameters = dict[str, Parameter]


def under(prefix: str, *groups: Parameters) -> Parameters:
    """Put the parameters of ``groups`` below ``prefix``."""
    return {f"{prefix}.{name}": parameter for group in groups for name, parameter in group.items()}


def dense(inputs: int, outputs: int, bias: bool = True) -> Parameters:
    """``y = x W^T + b``; W Glorot uniform, b zero."""
    made = {"weight": Parameter((outputs, inputs), glorot(inputs, outputs))}
    return made | ({"bias": Parameter((outputs,), Constant(0.0))} if bias else {})


def attention(dim: int) -> Parameters:
    """Queries, keys, values and output of multi-head attention; a bias of the keys would cancel in the softmax."""
    made = under("key", dense(dim, dim, bias=False))
    for name in ("query", "value", "out"):
        made |= under(name, dense(dim, dim))
    return made


def feed_forward(dim: int, inner: int) -> Parameters:
    """A normalisation and two matrices, which an activation stands between."""
    return under("norm", layer_norm(dim)) | under("linear1", dense(dim, inner)) | under("linear2", dense(inner, dim))


def embedding(vocabulary: int, dim: int) -> Parameters:
    """A vector for each token; normal with variance ``1 / dim``, which suits an output matrix as well."""
    return {"weight": Parameter((vocabulary, dim), Normal(dim**-0.5))}


def conv2d(inputs: int, outputs: int, kernel: int, bias: bool = True) -> Parameters:
    """A square kernel followed by a ReLU; He uniform, bias zero."""
    made = {"weight": Parameter((outputs, inputs, kernel, kernel), he(inputs * kernel * kernel))}
    return made | ({"bias": Parameter((outputs,), Constant(0.0))} if bias else {})


def depthwise(channels: int, kernel: int) -> Parameters:
    """One kernel a channel, no bias (a normalisation follows); Glorot uniform."""
    return {"weight": Parameter((channels, 1, kernel), glorot(kernel, kernel))}


def layer_norm(channels: int) -> Parameters:
    """Scale one, shift zero."""
    return {"weight": Parameter((channels,), Constant(1.0)), "bias": Parameter((channels,), Constant(0.0))}


def batch_norm(channels: int) -> Parameters:
    """Scale one, shift zero, running mean zero, running variance one."""
    return layer_norm(channels) | {
        "running_mean": Parameter((channels,), Constant(0.0), trainable=False),
        "running_var": Parameter((channels,), Constant(1.0), trainable=False),
    }


def subsample(inputs: int, channels: int, outputs: int, bias: bool = True) -> Parameters:
    """See :func:`subsampled`.

    The biases are uniform within ``1 / sqrt(fan in)``. With zero biases a silent or masked stretch of features becomes
    a zero vector, whose layer normalisation multiplies gradients by ``1 / sqrt(epsilon)``.

    Args:
        bias: whether the projection has one; before a batch norm it would do nothing.
    """
    flat = channels * int(subsampled(inputs))
    made = (
        under("conv1", conv2d(1, channels, 3))
        | under("conv2", conv2d(channels, channels, 3))
        | under("out", dense(flat, outputs, bias))
    )
    for name, fan_in in (("conv1.bias", 9), ("conv2.bias", 9 * channels), ("out.bias", flat)):
        if name in made:
            made[name] = Parameter(made[name].shape, Uniform(fan_in**-0.5))
    return made


def lstm(inputs: int, units: int) -> Parameters:
    """One layer in one direction, gates in the order input, forget, cell, output (Hochreiter & Schmidhuber 1997).

    Input weights Glorot uniform; recurrent weights uniform with variance ``1 / units``, which keeps the norm of the
    state as an orthogonal matrix would; bias one for the forget gate (Jozefowicz et al. 2015), else zero. There is one
    bias and not PyTorch's two, whose sum is all that counts: two trained ones move twice as fast under Adam.
    """
    return {
        "weight_ih_l0": Parameter((4 * units, inputs), glorot(inputs, units)),
        "weight_hh_l0": Parameter((4 * units, units), Uniform(float(np.sqrt(3.0 / units)))),
        "bias_ih_l0": Parameter((4 * units,), Blocks((0.0, 1.0, 0.0, 0.0))),
    }


def subsampled(length: Any) -> Any:
    """Length after two convolutions of width 3 and stride 2 without padding.

    No output depends on anything beyond its own inputs, so an utterance gives the same alone and in a padded batch.

    Args:
        length: int, numpy array or tensor of either framework, at least 0.
    """
    out = (length - 3) // 4
    return (out + abs(out)) // 2  # not below zero, in arithmetic that every one of these types has


def positions(longest: int, dim: int) -> np.ndarray:
    """Sinusoids of the relative positions ``longest - 1, ..., 0, ..., -longest`` (Vaswani et al. 2017, section 3.5).

    Relative position is query minus key. For a sequence of ``n`` take rows ``longest - n`` to ``longest + n``, the last
    of which no pair has; an even number of them lets scores be shifted without a copy.

    Returns:
        ``(2 * longest, dim)`` float32, computed in float64.
    """
    return sinusoids(np.arange(longest - 1, -longest - 1, -1), dim)


def sinusoids(positions: np.ndarray, dim: int) -> np.ndarray:
    """``(positions, dim)`` float32: sines at even places, cosines at odd ones (Vaswani et al. 2017, section 3.5)."""
    angles = positions[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(positions), dim).astype(np.float32)


def hash32(x: np.ndarray) -> np.ndarray:
    """A bijection of 32 bit words that scatters neighbours (the low-bias hash "prospector" by C. Wellons).

    Both twins compute the same bits.

    Args:
        x: uint32.
    """
    x = np.asarray(x, np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def dropout_base(seed: int, path: str) -> int:
    """The part of a dropout's key that stays the same from step to step.

    Args:
        path: the canonical path of the layer in its model.
    """
    return (seed ^ zlib.crc32(path.encode())) & 0xFFFFFFFF


def dropout_key(base: int, step: int) -> int:
    """The key of one step: ``hash32(base ^ hash32(step))``."""
    return int(hash32(np.uint32(base) ^ hash32(np.array([step & 0xFFFFFFFF])))[0])


def dropout_threshold(rate: float) -> int:
    """An element is dropped where its 16 bits are below this."""
    return min(round(rate * 2**16), 2**16 - 1)


def dropout_mask(elements: int, key: int, rate: float, first: int = 0) -> np.ndarray:
    """Reference of the twins' dropout: a hash of (element, key), each word serving two neighbours.

    Args:
        elements: of the tensor, counted with the channels last.
        key: of :func:`dropout_key`.
        rate: probability of being dropped, in steps of 1 / 65536.
        first: elements of the whole batch that lie before those of this device.

    Returns:
        ``(elements,)`` bool, true = kept.
    """
    words = hash32(hash32(np.arange(first // 2, (first + elements + 1) // 2)) ^ np.uint32(key))
    return words.astype("<u4").view("<u2")[first % 2 :][:elements] >= dropout_threshold(rate)


def check_native_dropout(native_dropout: bool, run: Run) -> Iterator[tuple[str, str]]:
    """Refuse the framework's own dropout on several devices: only the toolkit's masks are those of the whole batch.

    A model with a field ``native_dropout`` calls this in its ``check_run``.
    """
    if native_dropout and run.trainer.shares > 1:
        message = f"true is not supported with {run.trainer.shares} devices; set model.native_dropout=false"
        yield "native_dropout", message


def match(weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse weights that are not exactly those of a model.

    Args:
        weights: what is to be loaded, by canonical name.
        shapes: what the model has.

    Raises:
        ValueError: naming the first that are missing, unexpected or of another shape.
    """
    problems = [f"{name} is missing" for name in shapes if name not in weights]
    problems += [f"{name} is unknown to the model" for name in weights if name not in shapes]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"the weights are not this model's: {'; '.join(problems[:5])}{more}")
