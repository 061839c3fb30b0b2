"""What a recording needs of the torch engine."""

from __future__ import annotations

from typing import Any

import torch

from toolkit.certify.stream import Arrays
from toolkit.layers import torch as layers


def prepare(threads: int) -> None:
    """Compute with so many threads: a sum is cut among them, and so rounded otherwise."""
    torch.set_num_threads(threads)


def learning_rate(engine: Any) -> float:
    """What the optimizer took for its last step."""
    return float(engine.optimizer.param_groups[0]["lr"])


def trained(engine: Any) -> set[str]:
    """Canonical names of the parameters."""
    return {name for name, parameter in engine.model.named_parameters() if parameter.requires_grad}


def first_step(engine: Any, batches: list[Any], lr: float, position: int) -> Arrays:
    """What the coming step is made of: the first batch's intermediates, the loss, each gradient before clipping.

    The engine is left as it was.
    """
    before = layers.get_weights(engine.model)  # running statistics move in a forward pass
    found: dict[str, torch.Tensor] = {}
    total = torch.zeros((), dtype=torch.float64)
    for i, batch in enumerate(batches):
        engine.set_step(lr, position + i)
        batch = engine.fabric.to_device(batch)
        if not i:
            engine.task.train()
            with torch.no_grad():
                _, *lengths, intermediates = engine.module(batch)
            found |= {f"intermediate/{name}": value for name, value in intermediates.items()}
            found |= {f"intermediate/lengths.{n}": value for n, value in enumerate(lengths)}
        loss = engine.module.loss(batch) / len(batches)
        engine.fabric.backward(loss)
        total += loss.detach().cpu()
    found["loss"] = total
    found |= {f"gradient/{name}": p.grad for name, p in engine.model.named_parameters() if p.grad is not None}
    arrays = {name: value.detach().cpu().numpy().copy() for name, value in found.items()}
    engine.optimizer.zero_grad()
    layers.set_weights(engine.model, before)
    return arrays
