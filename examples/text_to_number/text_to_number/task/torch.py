"""Text to number in PyTorch."""

from __future__ import annotations

from torch import Tensor

from toolkit.tasks.torch import Task


class Regression(Task):
    """See :class:`text_to_number.task.spec.Regression`."""

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return ``(batch,)`` scaled numbers and the model's intermediates."""
        return self.model(batch["source"].long(), batch["source_lengths"])

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.train()
        return _losses(self(batch)[0], batch).mean()

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        self.eval()
        return {"scaled": self(inputs)[0]}

    def evaluate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.eval()
        scaled = self(batch)[0]
        return {"loss": _losses(scaled, batch), "scaled": scaled}


def _losses(scaled: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return (scaled - batch["numbers"]).square() / 2
