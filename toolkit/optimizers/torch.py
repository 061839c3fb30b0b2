"""Shared parts of the PyTorch optimizers: parameter groups, and the state under canonical names.

A twin is a ``torch.optim.Optimizer`` whose constructor takes its spec and the model's named parameters. The loop sets
``group["lr"]`` of every group before each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from toolkit.layers.parameters import decays
from toolkit.layers.torch import fill, whole
from toolkit.optimizers.state import check_state, moment_of


class Optimizer(Protocol):
    """A ``torch.optim.Optimizer`` that was built from a spec."""

    spec: Any
    param_groups: list[dict[str, Any]]
    state: Any


def groups(named_parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Return a parameter group with weight decay and one without.

    Args:
        named_parameters: ``model.named_parameters()``; frozen ones are ignored.
        weight_decay: of the parameters that decay.
    """
    split: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for _, parameter in named_parameters:
        if parameter.requires_grad:
            split[decays(tuple(parameter.shape))].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decay else 0.0}
        for decay, parameters in split.items()
        if parameters
    ]


def count_steps(optimizer: torch.optim.Optimizer) -> None:
    """Count the steps of an optimizer whose torch class does not, in ``group["steps"]``."""
    optimizer.register_step_post_hook(_count)
    for group in optimizer.param_groups:
        group["steps"] = 0


def _count(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        group["steps"] += 1


def get_state(optimizer: Optimizer, model: nn.Module) -> dict[str, np.ndarray]:
    """Return the optimizer's state under canonical names; zeros before the first step."""
    state: dict[str, np.ndarray] = {}
    step = max((int(group.get("steps", 0)) for group in optimizer.param_groups), default=0)
    moments = optimizer.spec.moments
    for name, parameter in _trained(model):
        kept = optimizer.state.get(parameter, {})
        step = max(step, int(kept.get("step", 0)))
        for moment in moments:
            value = kept.get(moment)
            state[f"{moment}.{name}"] = whole(torch.zeros_like(parameter) if value is None else value)
    state["step"] = np.array([step], np.int64)
    if "exp_avg_sq" in moments:
        state["exp_avg_sq_scale"] = np.ones(1)
    return state


def set_state(optimizer: Optimizer, model: nn.Module, state: Mapping[str, np.ndarray]) -> None:
    """Load a state that :func:`get_state` of either backend returned.

    Raises:
        ValueError: names or shapes differ from the optimizer's.
    """
    trained = dict(_trained(model))
    moments = optimizer.spec.moments
    check_state(state, {name: tuple(parameter.shape) for name, parameter in trained.items()}, moments)
    step = int(state["step"][0])
    counted = "steps" in optimizer.param_groups[0]
    for name, parameter in trained.items():
        # with the strides of the parameter: the fused kernels traverse both as contiguous memory
        kept = {moment: torch.empty_like(parameter) for moment in moments}
        for moment, value in kept.items():
            fill(value, moment_of(state, moment, name, 1.0))
        if not counted:
            kept["step"] = torch.tensor(float(step), dtype=torch.float32, device=parameter.device)
        optimizer.state[parameter] = kept
    for group in optimizer.param_groups:
        if counted:
            group["steps"] = step


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
