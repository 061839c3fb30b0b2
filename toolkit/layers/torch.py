"""Operations on a whole PyTorch model: weights by canonical name, dropout keys, shared batches, sharding."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from toolkit.layers import spec as shared
from toolkit.layers.dropout.torch import Dropout
from toolkit.layers.normalization.torch import BatchNorm
from toolkit.layers.recurrent.torch import LSTM


def bind(model: nn.Module, seed: int) -> None:
    """Set the key of every dropout of ``model`` from the seed and the layer's canonical path."""
    for path, module in model.named_modules():
        if isinstance(module, Dropout):
            module.base = shared.dropout_base(seed, path)


def set_step(model: nn.Module, step: int) -> None:
    """Set the number of the next micro-batch of the run in every dropout of ``model``.

    If a dropout is torch's own, this also seeds torch's generators, which draw its masks.
    """
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
    """Set which rows of the whole batch this device gets next, when several devices share batches.

    Args:
        before: number of rows before those of this device; dropout masks are cut from the whole batch's.
        present: False if the device has no rows and computes a row that does not count.
    """
    for module in model.modules():
        if isinstance(module, Dropout):
            module.before = before
        elif isinstance(module, BatchNorm):
            module.shared, module.present = True, present


def adopt(model: nn.Module, encoder: nn.Module) -> Callable[..., Any]:
    """Register the children of ``encoder`` as children of ``model``.

    The encoder then adds no level to canonical names: ``blocks.0``, not ``encoder.blocks.0``. Initial weights, dropout
    masks and checkpoints of an encoder are the same under every head.

    Args:
        model: the module that computes with ``encoder``.
        encoder: a module with no parameters or buffers of its own, only children.

    Returns:
        the forward pass of ``encoder``, in the training mode of ``model``.

    Raises:
        ValueError: ``encoder`` has parameters or buffers of its own, or ``model`` has a child of the same name.
    """
    own = [name for name, _ in (*encoder.named_parameters(recurse=False), *encoder.named_buffers(recurse=False))]
    if own:
        raise ValueError(f"{type(encoder).__name__} has parameters or buffers of its own: {', '.join(own)}")
    children = dict(encoder.named_children())
    if taken := children.keys() & dict(model.named_children()).keys():
        raise ValueError(f"{type(model).__name__} already has {', '.join(sorted(taken))}")
    for name, child in children.items():
        model.add_module(name, child)
    return functools.partial(_forward, model, encoder)


def _forward(model: nn.Module, encoder: nn.Module, *args: Any, **kwargs: Any) -> Any:
    encoder.training = model.training  # no child of the model, it is not reached by model.eval()
    return encoder.forward(*args, **kwargs)


class ForwardMethods(nn.Module):
    """A module with more methods than ``forward`` that compute with its weights and are called from outside.

    Where weights are sharded, they are gathered for these methods as for ``forward``.
    """

    forward_methods: ClassVar[tuple[str, ...]]


def shard(model: nn.Module, device: str) -> None:
    """Shard every parameter of ``model`` over the run's processes, with FSDP2.

    Each block in a ``ModuleList`` is gathered when it is called and resharded afterwards; the other parameters are
    gathered when the model is called. A block may only be called by ``forward`` and its ``forward_methods``. An LSTM
    is not a unit of its own, because it would be gathered again for every token of a search.

    Args:
        model: with equal weights in every process.
        device: "cpu" or "cuda", where the shards go.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    # FSDP warns of outputs that are views. No caller writes into them; test_devices.py would show it
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    model.to(memory_format=torch.contiguous_format)  # FSDP shards no other format
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for module in lists for block in module if not isinstance(block, LSTM)]
    for module in (*reversed(blocks), model):  # inner ones first
        # between two calls every parameter is sharded, those of the model itself too: any can be read and replaced
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for method in module.forward_methods if isinstance(module, ForwardMethods) else ():
            register_fsdp_forward_method(module, method)


def sharded(x: Tensor) -> bool:
    """Tell whether the processes each hold a shard of ``x``."""
    return isinstance(x, DTensor)


def part(x: Tensor) -> Tensor:
    """Return this process's shard of ``x``, in place; all of ``x`` if it is not sharded."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(x: Tensor) -> np.ndarray:
    """Copy a tensor to numpy.

    All processes must call this together if ``x`` is sharded. Only the first gets the values and the others an empty
    array, so no other process ever holds more than one whole tensor.
    """
    x = x.detach()
    if isinstance(x, DTensor):
        first, x = x.device_mesh.get_rank() == 0, x.full_tensor()
        x = x if first else x[:0]
    return x.cpu().numpy().copy()


def fill(x: Tensor, values: np.ndarray) -> None:
    """Overwrite ``x``, or this process's shard of it, with the whole ``values``."""
    source = torch.from_numpy(np.ascontiguousarray(values))
    if isinstance(x, DTensor):  # every process has the values, so nothing is sent
        source = distribute_tensor(source.to(x.device), x.device_mesh, x.placements, src_data_rank=None).to_local()
    with torch.no_grad():
        part(x).copy_(source)


def get_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Copy the parameters and buffers of ``model``, by canonical name (see :func:`whole`)."""
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
