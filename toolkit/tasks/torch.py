"""The base of the PyTorch twins of tasks."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn


def wide(logits: Tensor) -> Tensor:
    """Return logits in float32, or in float64 if the model is."""
    return logits if logits.dtype == torch.float64 else logits.float()


class Task(lightning.LightningModule):
    """Features and a model under a loss: a plain ``LightningModule``, which the stock ``Trainer`` can train.

    A task adds ``forward(batch)`` and the methods that its spec names (:class:`toolkit.tasks.spec.Task`).

    Args:
        spec: the task's spec.
        features: compute the input of the model; None if it takes the batch itself.
        model: returns its output and named intermediates.
    """

    optimizer: torch.optim.Optimizer  # for the stock Trainer
    model: Any  # some have more methods than forward

    def __init__(self, spec: Any, features: nn.Module | None, model: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.features: Any = features
        self.model = model

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Compute the training loss, in training mode."""
        raise NotImplementedError

    def evaluate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute outputs and figures of each example, in evaluation mode."""
        raise NotImplementedError

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Compute the loss of a batch, for the stock ``Trainer``."""
        return self.loss(batch)

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None, *_: Any, **__: Any) -> None:
        """Clip by norm; Lightning's method refuses fused optimizers under bfloat16, because of an unused scaler."""
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """Return the optimizer that was set as ``self.optimizer``."""
        return self.optimizer
