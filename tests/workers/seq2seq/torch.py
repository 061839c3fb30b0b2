"""Losses of the PyTorch translation task, and its methods on a stub model.

The logits of the stub are a table's rows for the previous tokens plus a term that depends on the source.
"""

from __future__ import annotations

from typing import Any

import torch

from toolkit.tasks.seq2seq.spec import Seq2Seq as Spec
from toolkit.tasks.seq2seq.torch import Seq2Seq

Tensors = dict[str, torch.Tensor]


class Model(torch.nn.Module):
    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(table)

    def forward(self, source: torch.Tensor, source_lengths: torch.Tensor, previous: torch.Tensor) -> Any:
        logits = self.table[previous] + source.sum(1)[:, None, None] * self.table[0]
        return logits * (2 if self.training else 1), {"previous": previous}

    def start(self, source: torch.Tensor, source_lengths: torch.Tensor, width: int) -> Tensors:
        return {"seen": source.sum(1).repeat_interleave(width)}

    def step(self, state: Tensors, tokens: torch.Tensor, parents: torch.Tensor) -> Any:
        seen = state["seen"][parents]
        return self.table[tokens] + seen[:, None] * self.table[0], {"seen": seen}


def compute(given: dict[str, Any]) -> dict[str, Any]:
    """Everything, of cases ``NAME/...``."""
    torch.set_num_threads(1)
    out: dict[str, Any] = {}
    for name in sorted({key.split("/")[0] for key in given}):
        batch = {k.split("/")[1]: torch.from_numpy(v) for k, v in given.items() if k.startswith(name + "/")}
        table, smoothing = batch.pop("table"), float(batch.pop("smoothing"))
        for kind in ("float32", "float64", "bfloat16"):
            task = Seq2Seq(Spec(label_smoothing=smoothing), None, Model(table.to(getattr(torch, kind))))
            out |= {f"{name}/{kind}/{key}": value for key, value in methods(task, batch, kind).items()}
    return out


def methods(task: Seq2Seq, batch: Tensors, kind: str) -> Tensors:
    loss = task.loss(batch)
    assert task.training and loss.dtype == (torch.float64 if kind == "float64" else torch.float32)
    loss.backward()
    out = {"loss": loss.detach(), "gradient": task.model.table.grad.to(loss.dtype)}
    out |= {f"evaluate/{k}": v for k, v in task.evaluate(batch).items()}
    assert not task.training
    out["previous"] = task(batch)[1]["previous"]
    task.train()
    state = task.begin({name: batch[name] for name in ("source", "source_lengths")}, 2)
    assert not task.training
    rows = torch.arange(2 * len(batch["source"]), dtype=torch.int32)
    for tokens in (0 * rows, rows % 7):
        log_probs, state = task.advance(state, tokens, rows // 2 * 2)
    assert log_probs.dtype == torch.float32
    task.optimizer = torch.optim.SGD(task.parameters(), 0.1)
    assert task.configure_optimizers() is task.optimizer
    assert float(task.training_step(batch, 0)) == float(loss)
    return out | {"log_probs": log_probs}
