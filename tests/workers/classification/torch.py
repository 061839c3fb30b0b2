"""The methods of the PyTorch classification task, on stubs that pass on what the features receive."""

from __future__ import annotations

from typing import Any

import torch

from tests.workers.classification.cases import ARGUMENTS, INPUTS, SMOOTHING
from toolkit.tasks.classification.spec import Classification as Spec
from toolkit.tasks.classification.torch import Classification


class Features(torch.nn.Module):
    def forward(self, images: torch.Tensor, *augmentation: torch.Tensor | None) -> torch.Tensor:
        self.given = dict(zip(ARGUMENTS, (images, *augmentation), strict=True))
        return images.flatten(1).double() / 255


class Model(torch.nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.head = torch.nn.Linear(*weight.shape[::-1], bias=False)

    def forward(self, pixels: torch.Tensor) -> Any:
        pixels = pixels.to(self.head.weight.dtype)
        return self.head(pixels) * (2 if self.training else 1), {"pixels": pixels}


def compute(given: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    weight = torch.from_numpy(given.pop("weight"))
    batch = {k: torch.from_numpy(v) for k, v in given.items()}
    out: dict[str, Any] = {}
    for kind in ("float32", "float64", "bfloat16"):
        for eps in (0.0, SMOOTHING):
            task = Classification(Spec(label_smoothing=eps), Features(), Model(weight).to(getattr(torch, kind)))
            with torch.no_grad():
                task.model.head.weight.copy_(weight)
            found = task.evaluate(batch)
            assert not task.training and found["log_probs"].dtype == torch.float32
            loss = task.loss(batch)
            assert all(torch.equal(task.features.given[name], batch[name]) for name in ARGUMENTS)
            assert task.training and loss.shape == ()
            predicted = task.predict({name: batch[name] for name in INPUTS})
            assert not task.training
            assert [name for name, value in task.features.given.items() if value is not None] == ["images"]
            assert loss.dtype == found["loss"].dtype == (torch.float64 if kind == "float64" else torch.float32)
            loss.backward()
            name = f"{kind}/{eps}"
            out[f"{name}/loss"] = loss
            out[f"{name}/gradient"] = task.model.head.weight.grad.double()
            out |= {f"{name}/evaluate/{k}": v for k, v in found.items()}
            out |= {f"{name}/predict/{k}": v for k, v in predicted.items()}
    assert task(batch)[1]["pixels"].shape == (len(batch["labels"]), weight.shape[1])
    task.optimizer = torch.optim.SGD(task.parameters(), 0.1)
    assert task.configure_optimizers() is task.optimizer
    assert float(task.training_step(batch, 0)) == float(loss)
    return out
