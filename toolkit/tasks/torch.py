"""What the PyTorch twins of all tasks share."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn


class Task(lightning.LightningModule):
    """Features and a model under a loss: a plain ``LightningModule``, which the stock ``Trainer`` can train.

    A task adds ``forward(batch)`` and the methods that its spec names (:class:`toolkit.tasks.spec.Task`).

    Args:
        spec: the task's spec.
        features: compute what the model sees; None where it sees the batch as it is.
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
        """The training loss; switches the module to training mode."""
        raise NotImplementedError

    def evaluate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs and figures of each example; switches the module to evaluation mode."""
        raise NotImplementedError

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """One batch under the stock ``Trainer``."""
        return self.loss(batch)

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None, *_: Any, **__: Any) -> None:
        """By norm. Lightning's own refuses fused optimizers under bfloat16, for the sake of a scaler it has not."""
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """The optimizer that was set as ``self.optimizer``."""
        return self.optimizer
