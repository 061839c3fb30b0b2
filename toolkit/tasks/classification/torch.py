"""The PyTorch twin of image classification."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from toolkit.tasks.torch import Task, wide


class Classification(Task):
    """Features, model and cross entropy: images in, loss or log-probabilities out.

    Args:
        spec: the task's spec.
        features: maps ``(images[, boxes, flips, erased, partners, shares])`` to pixels.
        model: maps pixels to ``(logits, intermediates)``.
    """

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return ``(batch, classes)`` logits and the model's intermediates."""
        drawn = (batch.get(name) for name in ("boxes", "flips", "erased", "partners", "shares"))
        return self.model(self.features(batch["images"], *drawn))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss over the images, in float32 (float64 if the model is)."""
        self.train()
        logits = wide(self(batch)[0])
        labels, share = batch["labels"].long(), batch["shares"].to(logits.dtype)
        losses, others = (
            functional.cross_entropy(logits, y, reduction="none", label_smoothing=self.spec.label_smoothing)
            for y in (labels, labels[batch["partners"].long()])
        )
        return (share * losses + (1 - share) * others).mean()

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``log_probs (batch, classes)`` float32."""
        self.eval()
        return {"log_probs": functional.log_softmax(wide(self(inputs)[0]), -1).float()}

    def evaluate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs of :meth:`predict`, and ``loss (batch,)`` without smoothing."""
        self.eval()
        logits = wide(self(batch)[0])
        losses = functional.cross_entropy(logits, batch["labels"].long(), reduction="none")
        return {"loss": losses, "log_probs": functional.log_softmax(logits, -1).float()}
