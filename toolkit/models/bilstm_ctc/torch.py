"""Bidirectional LSTM with a CTC head, in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.layers.torch import LSTM, BatchNorm, Dropout, Subsample, reverse, valid_frames
from toolkit.models.bilstm_ctc import spec as bilstm


class Block(nn.Module):
    """Batch norm, an LSTM in each direction, their sum."""

    def __init__(self, spec: bilstm.BiLSTMCTC) -> None:
        super().__init__()
        self.batch_norm = BatchNorm(spec.units)
        self.forwards = LSTM(spec.units, spec.units)
        self.backwards = LSTM(spec.units, spec.units)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)

    def forward(self, x: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
        """``(batch, time, units)``, ``(batch,)``, ``(batch, time)`` -> ``(batch, time, units)``."""
        x = self.batch_norm(x, valid)
        backwards = reverse(self.backwards(reverse(x, lengths)), lengths)
        return self.dropout(self.forwards(x) + backwards)


class BiLSTMCTC(nn.Module):
    """See :class:`toolkit.models.bilstm_ctc.spec.BiLSTMCTC`.

    Args:
        spec: the neutral description.
        inputs: size of a frame of features.
        outputs: size of the vocabulary with the blank.
    """

    def __init__(self, spec: bilstm.BiLSTMCTC, inputs: int, outputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.subsample = Subsample(inputs, spec.subsampling_channels, spec.units, bias=False)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.head = nn.Linear(spec.units, outputs)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compute the logits of a batch.

        Args:
            features: ``(batch, frames, inputs)``.
            lengths: ``(batch,)`` frames.

        Returns:
            ``(batch, time, outputs)`` logits, ``(batch,)`` their lengths, and the intermediates by name, in order.
        """
        x = self.subsample(features)
        lengths = self.spec.output_length(lengths)
        intermediates = {"features": features, "subsample": x}
        valid = valid_frames(lengths, x.shape[1])
        x = self.dropout(x)
        for number, block in enumerate(self.blocks):
            x = block(x, lengths.long(), valid)
            intermediates[f"blocks.{number}"] = x
        with torch.autocast(x.device.type, enabled=False):
            logits = self.head(x.to(self.head.weight.dtype))
        return logits, lengths, intermediates | {"logits": logits}
