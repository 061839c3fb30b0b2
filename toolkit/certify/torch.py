"""Access of a recording to the torch engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from toolkit.certify.stream import Arrays
from toolkit.layers import torch as layers

if TYPE_CHECKING:
    from toolkit.training.torch import TorchEngine


def prepare(threads: int) -> None:
    """Compute with this number of threads, among which sums are divided: it changes their rounding."""
    torch.set_num_threads(threads)


def learning_rate(engine: TorchEngine) -> float:
    """Return the learning rate of the optimizer's last step."""
    return float(engine.optimizer.param_groups[0]["lr"])


def trained(engine: TorchEngine) -> set[str]:
    """Return the canonical names of the parameters."""
    return {name for name, parameter in engine.model.named_parameters() if parameter.requires_grad}


def first_step(engine: TorchEngine, batches: list[Any], lr: float, batches_done: int) -> Arrays:
    """Return the inputs of the next update: intermediates of the first batch, the loss, each gradient before clipping.

    The engine's state does not change.
    """
    before = layers.get_weights(engine.model)  # running statistics move in a forward pass
    tensors: dict[str, torch.Tensor] = {}
    total = torch.zeros((), dtype=torch.float64)
    for i, batch in enumerate(batches):
        engine.set_step(lr, batches_done + i)
        batch = engine.fabric.to_device(batch)
        if not i:
            engine.task.train()
            with torch.no_grad():
                _, *lengths, intermediates = engine.module(batch)
            tensors |= {f"intermediate/{name}": value for name, value in intermediates.items()}
            tensors |= {f"intermediate/lengths.{n}": value for n, value in enumerate(lengths)}
        loss = engine.module.loss(batch) / len(batches)
        engine.fabric.backward(loss)
        total += loss.detach().cpu()
    tensors["loss"] = total
    tensors |= {f"gradient/{name}": p.grad for name, p in engine.model.named_parameters() if p.grad is not None}
    arrays = {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}
    engine.optimizer.zero_grad()
    layers.set_weights(engine.model, before)
    return arrays
