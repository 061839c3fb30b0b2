"""Layers of the PyTorch twins, and their weights by canonical name."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from toolkit.layers import spec as shared


class Dropout(nn.Module):
    """Dropout whose mask is a hash of (seed, path, step, element): the same bits on both backends and after a resume.

    :func:`bind` must be called once and :func:`set_step` before every training step.

    Args:
        rate: probability of an element to be dropped; the others are scaled by ``1 / (1 - rate)``.
        native: draw from PyTorch's generator instead, seeded anew at every step. Costs about half, but the masks
            are not those of the other backend.
    """

    def __init__(self, rate: float, native: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.native = native
        self.base: int | None = None
        self.step = 0
        self.before = 0  # rows of the whole batch that lie before those of this device

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of ``x``, whose last axis is the channels."""
        if not self.training or not self.rate:
            return x
        if self.native:
            return F.dropout(x, self.rate)
        if self.base is None:
            raise RuntimeError("dropout has no key: call toolkit.layers.torch.bind(model, seed) first")
        key, first = shared.dropout_key(self.base, self.step), self.before * x[0].numel() if self.before else 0
        keep = _keep(x.numel(), key, self.rate, x.device, first)
        return x * keep.view(x.shape).to(x.dtype).mul_(1.0 / (1.0 - self.rate))


def bind(model: nn.Module, seed: int) -> None:
    """Give every dropout of ``model`` its key, from the seed and its path."""
    for path, module in model.named_modules():
        if isinstance(module, Dropout):
            module.base = shared.dropout_base(seed, path)


def set_step(model: nn.Module, step: int) -> None:
    """Tell every dropout of ``model`` which micro-batch of the run comes next."""
    native = None
    for module in model.modules():
        if isinstance(module, Dropout):
            module.step = step
            native = module if module.native and module.rate else native
    if native is not None:
        if native.base is None:
            raise RuntimeError("dropout has no key: call toolkit.layers.torch.bind(model, seed) first")
        torch.manual_seed(shared.dropout_key(native.base, step))


def set_rows(model: nn.Module, before: int, present: bool) -> None:
    """Tell ``model`` which rows of the whole batch come next, where several devices share it.

    Args:
        before: how many of its rows lie before those of this device: its dropout masks are the whole batch's.
        present: False: the device has none, and works on a row that is not to count.
    """
    for module in model.modules():
        if isinstance(module, Dropout):
            module.before = before
        elif isinstance(module, BatchNorm):
            module.shared, module.present = True, present


def _keep(elements: int, key: int, rate: float, device: torch.device, first: int = 0) -> Tensor:
    """:func:`toolkit.layers.spec.dropout_mask` on int32, the words' two's complement."""
    count = (first + elements + 1) // 2
    capacity = 1 << max(count - 1, 0).bit_length()
    words = _hash32(_hashed_indices(capacity, device)[first // 2 : count] ^ _signed(key))
    # signed comparison orders like the unsigned one once the top bit of each half is flipped
    halves = words.bitwise_xor_(_signed(0x80008000)).view(torch.int16)[first % 2 : first % 2 + elements]
    return halves >= shared.dropout_threshold(rate) - 2**15


@functools.lru_cache(maxsize=4)
def _hashed_indices(capacity: int, device: torch.device) -> Tensor:
    """Hashes of 0, 1, ...: the half of the work that is the same at every step."""
    return _hash32(torch.arange(capacity, dtype=torch.int32, device=device))


def _hash32(x: Tensor) -> Tensor:
    """:func:`toolkit.layers.spec.hash32`, in place; the masks turn int32's arithmetic shift into a logical one."""
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(_signed(0x846CA68B))
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015), of sequences over the valid frames only: padding never counts.

    Otherwise ``torch.nn.BatchNorm1d`` and ``2d``: biased variance of the batch, unbiased running variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.shared = False  # whether this batch is a part of one that several devices share
        self.present = True  # whether any of its rows are of this device

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise ``x``.

        Args:
            x: sequences ``(batch, time, channels)``, or pictures ``(batch, channels, height, width)``.
            valid: ``(batch, time)``, which frames of sequences are no padding; None for pictures.
        """
        if valid is not None:
            return self._masked(x, valid)
        if x.numel() > x.shape[1] and not (self.shared and self.training):
            if self.training and x.dtype == torch.float32 and x.device.type == "cpu" and not x.is_contiguous():
                return self._precise(x)
            buffers, parameters = (self.running_mean, self.running_var), (self.weight, self.bias)
            momentum = shared.BATCH_NORM_MOMENTUM
            return F.batch_norm(x, *buffers, *parameters, self.training, momentum, shared.NORM_EPSILON)
        # PyTorch refuses one value a channel, the last example of an epoch, and sees the rows of this device alone
        x = x.movedim(1, -1)
        return self._masked(x, torch.ones_like(x[..., 0], dtype=torch.bool)).movedim(-1, 1)

    def _precise(self, x: Tensor) -> Tensor:
        y, mean, variance = _Normalized.apply(x, self.weight, self.bias)
        count = x.numel() // x.shape[1]
        self._run(mean, variance * (count / (count - 1)))
        return y

    def _masked(self, x: Tensor, valid: Tensor) -> Tensor:
        axes = tuple(range(x.ndim - 1))
        dtype = x.dtype
        x = x.to(self.weight.dtype)  # statistics of bfloat16 activations need float32
        if self.training:
            weight = valid[..., None].to(x.dtype) * self.present if self.shared else valid[..., None].to(x.dtype)
            total = _Total.apply if self.shared else _itself
            count = total(weight.sum()).clamp(min=1.0)
            mean = total((x * weight).sum(axes)) / count
            x = x - mean
            variance = total((x.square() * weight).sum(axes)) / count
            self._run(mean, variance * (count / (count - 1.0).clamp(min=1.0)))
        else:
            x, variance = x - self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + shared.NORM_EPSILON)
        return (x * scale + self.bias).to(dtype)

    @torch.no_grad()
    def _run(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        self.running_mean.lerp_(mean, shared.BATCH_NORM_MOMENTUM)
        self.running_var.lerp_(unbiased, shared.BATCH_NORM_MOMENTUM)


def _itself(x: Tensor) -> Tensor:
    return x


class _Total(torch.autograd.Function):
    """The sum of a tensor over all devices; so is its gradient, for each device's part goes into every one's loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        total = upstream[0].clone()
        torch.distributed.all_reduce(total)
        return total


class _Normalized(torch.autograd.Function):
    """Batch normalisation of pictures with their channels last, by the statistics of the batch.

    PyTorch's own kernel for that layout adds all pixels of a batch one after the other in float32 on a CPU: for
    128 x 28 x 28 of them, mean, variance and gradient are 3e-4 off. The sums here are cascaded: 2e-7, for twice the
    time of a normalisation.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = _pixels(x)
        mean = pixels.mean(0)
        variance = (pixels - mean).square_().mean(0)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + shared.NORM_EPSILON))
        ctx.mark_non_differentiable(mean, variance)
        # by given statistics the kernel adds nothing up
        y = F.batch_norm(x, mean, variance, weight, bias, False, 0.0, shared.NORM_EPSILON)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, mean, scale = ctx.saved_tensors
        arriving = _pixels(upstream[0])
        normal = torch.addcmul(-mean * scale, _pixels(x), scale)
        to_bias, to_weight = arriving.sum(0), (arriving * normal).sum(0)
        slope, count = weight * scale, len(normal)
        to_x = normal.mul_(-to_weight / count * slope).addcmul_(arriving, slope).sub_(to_bias / count * slope)
        batch, _, height, width = x.shape
        return to_x.view(batch, height, width, -1).permute(0, 3, 1, 2), to_weight, to_bias


def _pixels(x: Tensor) -> Tensor:
    """``(batch, channels, height, width)`` -> ``(pixels of all, channels)``; a view where the channels are last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def conv2d(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution with an odd, square kernel, padded alike on all sides."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)


class Head(nn.Linear):
    """A linear layer that gives logits in the precision of its weights, also under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


KeyValue = tuple[Tensor, Tensor]  # keys and values, each (batch, heads, time, dim / heads)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

    A model's own adds what else stands there under the same name: a normalisation, dropout.

    Args:
        dim: width of the vectors, a multiple of ``heads``.
        heads: each of ``dim / heads`` values.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def keys(self, x: Tensor) -> KeyValue:
        """Keys and values of ``(batch, time, dim)``."""
        return self._split(self.key(x)), self._split(self.value(x))

    def attend(
        self, x: Tensor, keys: KeyValue, masking: Tensor | None = None, dropout: Dropout | None = None
    ) -> Tensor:
        """Attend.

        Args:
            x: ``(batch, queries, dim)``.
            keys: of :meth:`keys`.
            masking: added to the scores ``(batch, heads, queries, time)``: 0, or a great negative number to hide a key.
            dropout: of the attention weights.

        Returns:
            ``(batch, queries, dim)``.
        """
        query, (key, value) = self._split(self.query(x)), keys
        if masking is not None:
            masking = masking.to(query.dtype)
        if dropout is not None and dropout.rate and self.training:
            scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-1, -2)
            weights = torch.softmax(scores if masking is None else scores + masking, -1)
            mixed = dropout(weights).to(value.dtype) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, masking)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Norm, expansion, activation, projection; dropout behind the last two.

    Args:
        dim: width of the vectors.
        inner: width between expansion and projection.
        activation: of each value.
        dropout, native: see :class:`Dropout`.
    """

    def __init__(
        self, dim: int, inner: int, activation: Callable[[Tensor], Tensor], dropout: float, native: bool
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm = nn.LayerNorm(dim, eps=shared.NORM_EPSILON)
        self.linear1 = nn.Linear(dim, inner)
        self.linear2 = nn.Linear(inner, dim)
        self.dropout1 = Dropout(dropout, native)
        self.dropout2 = Dropout(dropout, native)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, time, dim)`` -> the same."""
        x = self.dropout1(self.activation(self.linear1(self.norm(x))))
        return self.dropout2(self.linear2(x))


class LSTM(nn.LSTM):
    """One layer in one direction with one bias; ``(batch, time, inputs)`` -> ``(batch, time, units)``.

    It always runs in the precision of its weights: bfloat16 rounding would add up over the steps.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units, batch_first=True)
        zero = torch.zeros(4 * units)
        del self.bias_hh_l0
        self.register_buffer("bias_hh_l0", zero, persistent=False)
        self.bias_hh_l0 = zero  # this, unlike the line above, also reaches the list that nn.LSTM computes with

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Go over ``x`` from the state ``hidden`` ``(batch, units)``, or from zero; the cell begins with zero."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight_ih_l0.dtype)
            start = None if hidden is None else (hidden[None], torch.zeros_like(hidden)[None])
            return super().forward(x, start)[0]

    def step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """One step: ``(batch, inputs)`` and twice ``(batch, units)`` -> the next state and cell."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight_ih_l0.dtype)
            gates = F.linear(x, self.weight_ih_l0, self.bias_ih_l0) + F.linear(hidden, self.weight_hh_l0)
            enter, forget, new, leave = gates.chunk(4, -1)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            return leave.sigmoid() * cell.tanh(), cell


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Turn each ``(time, channels)`` of a batch round within its length; padding stays in place."""
    time = torch.arange(x.shape[1], device=x.device)
    index = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return torch.gather(x, 1, index[..., None].expand(x.shape))


class Subsample(nn.Module):
    """Two convolutions of stride 2 with ReLU, then a projection: a quarter of the frames (see ``spec.subsampled``)."""

    def __init__(self, inputs: int, channels: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, 2)
        self.conv2 = nn.Conv2d(channels, channels, 3, 2)
        self.out = nn.Linear(channels * shared.subsampled(inputs), outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, frames, inputs)`` -> ``(batch, time, outputs)``."""
        x = F.relu(self.conv2(F.relu(self.conv1(x[:, None]))))
        return self.out(x.permute(0, 2, 3, 1).flatten(2))


def valid_frames(lengths: Tensor, longest: int) -> Tensor:
    """``(batch,)`` lengths -> ``(batch, longest)`` bool, true where there is no padding."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def adopt(model: nn.Module, part: nn.Module) -> Callable[..., Any]:
    """Register the children of ``part`` as children of ``model``, under their own names.

    An encoder of a model adds no level to canonical names that way: ``blocks.0``, not ``encoder.blocks.0``. So initial
    weights, dropout masks and checkpoints do not depend on what stands on the encoder.

    Args:
        model: the module that computes with ``part``.
        part: a module with no parameters or buffers of its own, only children.

    Returns:
        the forward pass of ``part``.

    Raises:
        ValueError: ``part`` has parameters or buffers of its own, or ``model`` has a child of the same name.
    """
    own = [name for name, _ in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))]
    if own:
        raise ValueError(f"{type(part).__name__} has parameters or buffers of its own: {', '.join(own)}")
    children = dict(part.named_children())
    if taken := children.keys() & dict(model.named_children()).keys():
        raise ValueError(f"{type(model).__name__} already has {', '.join(sorted(taken))}")
    for name, child in children.items():
        model.add_module(name, child)
    return part.forward


# methods of a model and of its blocks that are called from outside as ``forward`` is
ENTRIES = ("start", "step", "keys")


def shard(model: nn.Module, device: str) -> None:
    """Leave to this process its part of every parameter of ``model``; the run's other processes have the others.

    The blocks that a model lists are gathered one by one when they are called, and given up after it; the rest is when
    the model is called. So a block may be called by ``forward`` and ``keys`` alone. One with a ``step``, such as a
    decoder's LSTM, belongs to the rest: it would be gathered anew for every token.

    Args:
        model: with its weights, the same in every process.
        device: "cpu" or "cuda", where the parts go.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    # of outputs that are views, into which no caller here writes; the trajectory would show it (test_devices.py)
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    model.to(memory_format=torch.contiguous_format)  # nothing else is sharded
    listed = [block for blocks in model.modules() if isinstance(blocks, nn.ModuleList) for block in blocks]
    for module in (*(block for block in reversed(listed) if not hasattr(block, "step")), model):  # inner ones first
        # between two calls parameters are always parts, of the model itself too, so that any can be read and replaced
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for entry in ENTRIES:
            if hasattr(type(module), entry):
                register_fsdp_forward_method(module, entry)


def sharded(x: Tensor) -> bool:
    return isinstance(x, DTensor)


def part(x: Tensor) -> Tensor:
    """What this process holds of a tensor: of a sharded one its part, in place; else all."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(x: Tensor) -> np.ndarray:
    """A copy of a tensor.

    Of a sharded one all processes have to ask at once. The first is given it, the others nothing: of a model that is
    asked for tensor by tensor no other process ever has more than one.
    """
    x = x.detach()
    if isinstance(x, DTensor):
        first, x = x.device_mesh.get_rank() == 0, x.full_tensor()
        x = x if first else x[:0]
    return x.cpu().numpy().copy()


def fill(x: Tensor, values: np.ndarray) -> None:
    """Overwrite a tensor; of a sharded one, this process's part. ``values`` are the whole."""
    given = torch.from_numpy(np.ascontiguousarray(values))
    if isinstance(x, DTensor):  # every process has the values: none is sent any
        given = distribute_tensor(given.to(x.device), x.device_mesh, x.placements, src_data_rank=None).to_local()
    with torch.no_grad():
        part(x).copy_(given)


def get_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """The parameters and buffers of ``model`` by canonical name, copied (see :func:`whole`)."""
    return {name: whole(value) for name, value in model.state_dict().items()}


def set_weights(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Overwrite every parameter and buffer of ``model``.

    Raises:
        ValueError: a name is missing or unexpected, or a shape differs.
    """
    state = model.state_dict()
    shared.match(weights, {name: tuple(value.shape) for name, value in state.items()})
    for name, value in state.items():
        fill(value, weights[name])
