"""The PyTorch twin of SGD."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from toolkit.layers.torch import sharded
from toolkit.optimizers.sgd import spec as sgd
from toolkit.optimizers.torch import count_steps, groups


class SGD(torch.optim.SGD):
    """``torch.optim.SGD`` with the fused kernel, which does not take sharded parameters.

    Args:
        spec: the spec.
        named_parameters: ``model.named_parameters()``.
    """

    def __init__(self, spec: sgd.SGD, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        parameters = groups(named_parameters, spec.weight_decay)
        fused = not any(sharded(parameter) for group in parameters for parameter in group["params"])
        super().__init__(parameters, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=fused)
        self.spec = spec
        count_steps(self)
