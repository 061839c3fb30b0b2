"""Bidirectional LSTM encoder in PyTorch."""

from __future__ import annotations

from torch import Tensor, nn

from toolkit.encoders.bilstm import spec as bilstm
from toolkit.layers.basic.torch import Subsample, valid_frames
from toolkit.layers.dropout.torch import Dropout
from toolkit.layers.normalization.torch import BatchNorm
from toolkit.layers.recurrent.torch import LSTM, reverse


class Block(nn.Module):
    """Batch norm and the sum of an LSTM in each direction."""

    def __init__(self, spec: bilstm.BiLSTM) -> None:
        super().__init__()
        self.batch_norm = BatchNorm(spec.units)
        self.forwards = LSTM(spec.units, spec.units)
        self.backwards = LSTM(spec.units, spec.units)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)

    def forward(self, x: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
        """Map ``(batch, time, units)``, ``(batch,)`` lengths and ``(batch, time)`` mask to ``(batch, time, units)``."""
        x = self.batch_norm(x, valid)
        backwards = reverse(self.backwards(reverse(x, lengths)), lengths)
        return self.dropout(self.forwards(x) + backwards)


class BiLSTM(nn.Module):
    """See :class:`toolkit.encoders.bilstm.spec.BiLSTM`.

    Args:
        spec: the neutral description.
        inputs: size of a frame of features.
    """

    def __init__(self, spec: bilstm.BiLSTM, inputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.subsample = Subsample(inputs, spec.subsampling_channels, spec.units, bias=False)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Encode a batch.

        Args:
            features: ``(batch, frames, inputs)``.
            lengths: ``(batch,)`` frames.

        Returns:
            ``(batch, time, units)``, ``(batch,)`` lengths in steps, and the intermediates by name, in order.
        """
        x = self.subsample(features)
        lengths = self.spec.output_length(lengths)
        intermediates = {"features": features, "subsample": x}
        valid = valid_frames(lengths, x.shape[1])
        x = self.dropout(x)
        for number, block in enumerate(self.blocks):
            x = block(x, lengths.long(), valid)
            intermediates[f"blocks.{number}"] = x
        return x, lengths, intermediates
