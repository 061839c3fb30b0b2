"""Trainings with the torch optimizers."""

from __future__ import annotations

import torch

from tests.workers.optimizers import cases
from tests.workers.optimizers.cases import Arrays, Case
from toolkit.config.build import build
from toolkit.optimizers import torch as optimizers
from toolkit.optimizers.adamw.spec import AdamW


class Training:
    """A training of a case, with the toolkit's optimizer or another one."""

    def __init__(self, case: Case, weights: Arrays) -> None:
        self._case, self._model, self._kind = case, torch.nn.Module(), getattr(torch, case.kind)
        for name, value in weights.items():
            owner, leaf = name.split(".")
            if owner not in dict(self._model.named_children()):
                self._model.add_module(owner, torch.nn.Module())
            parameter = torch.nn.Parameter(torch.tensor(value).to(self._kind))
            self._model.get_submodule(owner).register_parameter(leaf, parameter)
        self._optimizer = self._built()

    def _built(self) -> torch.optim.Optimizer:
        return build(self._case.spec, "torch", self._model.named_parameters())

    def step(self, rate: float, gradients: Arrays) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        for name, parameter in self._model.named_parameters():
            parameter.grad = torch.tensor(gradients[name]).to(self._kind)
        if self._case.clip:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._case.clip)
        self._optimizer.step()

    def weights(self) -> Arrays:
        return {name: parameter.detach().numpy().copy() for name, parameter in self._model.named_parameters()}

    def state(self) -> Arrays:
        return optimizers.get_state(self._optimizer, self._model)

    def load(self, state: Arrays) -> None:
        optimizers.set_state(self._optimizer, self._model, state)


class StockTraining(Training):
    """The same with the optimizer of torch."""

    def _built(self) -> torch.optim.Optimizer:
        spec = self._case.spec
        plain = [{"params": [p], "weight_decay": spec.weight_decay * (p.ndim > 1)} for p in self._model.parameters()]
        if isinstance(spec, AdamW):
            return torch.optim.AdamW(plain, lr=spec.lr, betas=spec.betas, eps=spec.eps, foreach=False)
        return torch.optim.SGD(plain, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, foreach=False)

    def state(self) -> Arrays:
        return {}


def trainings(arrays: Arrays) -> Arrays:
    found = cases.compute(Training, arrays)
    if "whole" in {name.split("/")[0] for name in found}:
        stock = cases.compute(StockTraining, arrays)
        found |= {name.replace("whole", "stock"): value for name, value in stock.items() if name.startswith("whole/")}
    return found
