"""The PyTorch twin of sequence-to-sequence translation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.layers.basic.torch import valid_frames
from toolkit.tasks.torch import Task, wide


class _SmoothedLosses(torch.autograd.Function):
    """Cross entropy whose gradient reads the logits once; torch's own function takes 1.5 times as long."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        normalizers = logits.logsumexp(-1)
        ctx.save_for_backward(logits, targets, normalizers)
        ctx.smoothing = smoothing
        chosen = logits.gather(1, targets[:, None])[:, 0]
        return normalizers - (1 - smoothing) * chosen - smoothing * logits.mean(-1)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, normalizers = ctx.saved_tensors
        derivative = (logits - normalizers[:, None]).exp_().sub_(ctx.smoothing / logits.shape[1])
        derivative.mul_(upstream[0][:, None])
        return derivative.scatter_add_(1, targets[:, None], (ctx.smoothing - 1) * upstream[0][:, None]), None, None


def smoothed_losses(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Compute the cross entropy of each target with label smoothing, in nats; see the module of the spec.

    Args:
        logits: ``(targets, vocabulary)``.
        targets: ``(targets,)``.
        smoothing: eps.

    Returns:
        ``(targets,)`` in the precision of the logits.
    """
    return _SmoothedLosses.apply(logits, targets.long(), smoothing)


class Seq2Seq(Task):
    """Features, model and loss: source and translation in, loss or the next token's log-probabilities out.

    Args:
        spec: the task's spec.
        features: none; the model embeds token ids.
        model: maps ``(source, source lengths, previous tokens)`` to ``(logits, intermediates)``.
    """

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return ``(batch, targets, vocabulary)`` logits and the model's intermediates."""
        previous = functional.pad(batch["tokens"], (1, 0))
        source, lengths = _source(batch)
        return self.model(source, lengths, previous)

    def _target_losses(self, batch: dict[str, Tensor], smoothing: float) -> tuple[Tensor, Tensor]:
        """Return the losses, 0 at padding, and a mask of the targets; both ``(batch, targets)``."""
        logits, _ = self(batch)
        tokens, lengths = batch["tokens"], batch["token_lengths"]
        targets = functional.pad(tokens * valid_frames(lengths, tokens.shape[1]), (0, 1))
        real = valid_frames(lengths + 1, targets.shape[1])
        losses = smoothed_losses(wide(logits).flatten(0, 1), targets.flatten(), smoothing).view(targets.shape)
        return losses.masked_fill(~real, 0.0), real

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss over the targets, in float32 (float64 if the model is)."""
        self.train()
        losses, real = self._target_losses(batch, self.spec.label_smoothing)
        return losses.sum() / real.sum()

    def evaluate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss (batch,)``, the mean over an example's targets without smoothing, and ``tokens (batch,)``."""
        self.eval()
        losses, real = self._target_losses(batch, 0.0)
        counts = real.sum(-1)
        return {"loss": losses.sum(-1) / counts, "tokens": counts.int()}

    def begin(self, inputs: dict[str, Tensor], width: int) -> dict[str, Tensor]:
        """Return the initial state of a search: the encoded sources with ``width`` empty translations each."""
        self.eval()
        source, lengths = _source(inputs)
        return self.model.start(source, lengths, width)

    def advance(self, state: dict[str, Tensor], tokens: Tensor, parents: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the log-probabilities of the next token.

        Args:
            state: of :meth:`begin` or of the previous step.
            tokens: ``(batch * width,)``, the last token of each row.
            parents: ``(batch * width,)``, the row of the previous step that each row continues.

        Returns:
            ``(batch * width, vocabulary)`` float32, and the next state.
        """
        logits, state = self.model.step(state, tokens, parents)
        return functional.log_softmax(wide(logits), -1).float(), state


def _source(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return ``(batch, source)`` token ids and ``(batch,)`` lengths, as int64, which indexing requires."""
    return batch["source"].long(), batch["source_lengths"].long()
