"""The PyTorch twin of CTC speech recognition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.tasks.torch import Task


def ctc_loss(logits: Tensor, tokens: Tensor, token_lengths: Tensor, lengths: Tensor) -> Tensor:
    """Compute the negative log-likelihood of each utterance, in nats.

    Args:
        logits: ``(batch, time, vocabulary)``, blank 0.
        tokens: ``(batch, tokens)``, with any padding.
        token_lengths: ``(batch,)``.
        lengths: ``(batch,)`` frames.

    Returns:
        ``(batch,)`` float64; 0, with gradient 0, if the utterance has too few frames for its tokens.
    """
    log_probs = functional.log_softmax(logits.double(), -1).transpose(0, 1)
    return functional.ctc_loss(
        log_probs, tokens.long(), lengths.long(), token_lengths.long(), blank=0, reduction="none", zero_infinity=True
    )


class CTC(Task):
    """Features, model and CTC loss: waveforms in, loss or log-probabilities out.

    Args:
        spec: the task's spec.
        features: maps ``(waveforms, lengths[, time_masks, frequency_masks])`` to ``(features, frame lengths)``.
        model: maps features to ``(logits, lengths, intermediates)``.
    """

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return ``(batch, time, vocabulary)`` logits, ``(batch,)`` frames, and the model's intermediates."""
        features, lengths = self.features(
            batch["waveforms"], batch["waveform_lengths"], batch.get("time_masks"), batch.get("frequency_masks")
        )
        return self.model(features, lengths)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss over the utterances, in float32 (float64 if the model is)."""
        self.train()
        logits, lengths, _ = self(batch)
        loss = ctc_loss(logits, batch["tokens"], batch["token_lengths"], lengths).mean()
        return loss if logits.dtype == torch.float64 else loss.float()

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``log_probs (batch, time, vocabulary)`` float32 and ``lengths (batch,)`` frames."""
        self.eval()
        logits, lengths, _ = self(inputs)
        return {"log_probs": functional.log_softmax(logits.double(), -1).float(), "lengths": lengths}

    def evaluate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs of :meth:`predict`, and ``loss (batch,)``."""
        self.eval()
        logits, lengths, _ = self(batch)
        losses = ctc_loss(logits, batch["tokens"], batch["token_lengths"], lengths)
        return {"loss": losses, "log_probs": functional.log_softmax(logits.double(), -1).float(), "lengths": lengths}
