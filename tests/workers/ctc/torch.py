"""Losses and gradients of the PyTorch CTC task, and its methods on a stub model."""

from __future__ import annotations

from typing import Any

import torch

from toolkit.tasks.ctc.spec import CTC as Spec
from toolkit.tasks.ctc.torch import CTC, ctc_loss

INPUTS = ("waveforms", "waveform_lengths")


class Features(torch.nn.Module):
    def forward(self, waveforms: torch.Tensor, lengths: torch.Tensor, *masks: torch.Tensor | None) -> Any:
        self.masks = masks
        return waveforms.reshape(len(waveforms), -1, 4), lengths // 4


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(4, 6)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> Any:
        return self.head(features) * (2 if self.training else 1), lengths, {"features": features}


def compute(given: dict[str, Any]) -> dict[str, Any]:
    """Everything, of cases ``NAME/...`` and of the batch ``task/...``."""
    torch.set_num_threads(1)
    out: dict[str, Any] = {}
    for name in sorted({key.split("/")[0] for key in given if not key.startswith("task/")}):
        case = {key.split("/")[1]: torch.from_numpy(v) for key, v in given.items() if key.startswith(f"{name}/")}
        for kind in (torch.float64, torch.float32, torch.bfloat16):
            short = str(kind).split(".")[1]
            out |= {f"{name}/{short}/{key}": value for key, value in loss_and_gradient(case, kind).items()}
    batch = {key[5:]: torch.from_numpy(v) for key, v in given.items() if key.startswith("task/")}
    for kind in ("float32", "float64"):
        out |= {f"task/{kind}/{key}": value for key, value in methods(batch, kind).items()}
    return out


def loss_and_gradient(case: dict[str, torch.Tensor], kind: torch.dtype) -> dict[str, torch.Tensor]:
    x = case["logits"].to(kind).detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        loss = ctc_loss(x, case["tokens"], case["token_lengths"], case["lengths"])
    (loss * case["weight"]).sum().backward()
    return {"loss": loss, "gradient": x.grad if kind == torch.float64 else x.grad.float()}


def methods(batch: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    batch = batch | {"waveforms": batch["waveforms"].to(getattr(torch, kind))}
    task = CTC(Spec(), Features(), Model().to(getattr(torch, kind)))
    with torch.no_grad():
        task.model.head.weight.copy_(batch["weight"])
        task.model.head.bias.copy_(batch["bias"])
    found = task.evaluate(batch)
    assert not task.training and found["log_probs"].dtype == torch.float32
    predicted = task.train().predict({name: batch[name] for name in INPUTS})
    assert not task.training and task.features.masks == (None, None)
    loss = task.loss(batch)
    assert torch.equal(task.features.masks[0], batch["time_masks"])
    assert torch.equal(task.features.masks[1], batch["frequency_masks"])
    assert task.training and loss.dtype == getattr(torch, kind) and loss.shape == ()
    loss.backward()
    out = {"loss": loss.detach(), "gradient": task.model.head.weight.grad.clone()}
    task.optimizer = torch.optim.SGD(task.parameters(), 0.1)
    assert task.configure_optimizers() is task.optimizer
    assert float(task.training_step(batch, 0)) == float(loss)
    out |= {f"evaluate/{k}": v for k, v in found.items()}
    return out | {f"predict/{k}": v for k, v in predicted.items()}


def losses(given: dict[str, Any]) -> dict[str, Any]:
    """The loss of one case."""
    return {"loss": ctc_loss(*(torch.from_numpy(given[k]) for k in ("logits", "tokens", "token_lengths", "lengths")))}
