"""Recurrent layers in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LSTM(nn.LSTM):
    """One layer in one direction with one bias; ``(batch, time, inputs)`` -> ``(batch, time, units)``.

    It always runs in the precision of its weights, because bfloat16 rounding would accumulate over the steps.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units, batch_first=True)
        zero = torch.zeros(4 * units)
        del self.bias_hh_l0
        self.register_buffer("bias_hh_l0", zero, persistent=False)
        self.bias_hh_l0 = zero  # unlike the line above, this also reaches the list that nn.LSTM computes with

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Run over ``x`` from the state ``hidden`` ``(batch, units)``, or from zero; the cell starts at zero."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight_ih_l0.dtype)
            start = None if hidden is None else (hidden[None], torch.zeros_like(hidden)[None])
            return super().forward(x, start)[0]

    def step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step: ``(batch, inputs)`` and twice ``(batch, units)`` -> the next state and cell."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight_ih_l0.dtype)
            gates = F.linear(x, self.weight_ih_l0, self.bias_ih_l0) + F.linear(hidden, self.weight_hh_l0)
            enter, forget, new, leave = gates.chunk(4, -1)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            return leave.sigmoid() * cell.tanh(), cell


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each ``(time, channels)`` of a batch within its length; padding stays in place."""
    time = torch.arange(x.shape[1], device=x.device)
    index = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return torch.gather(x, 1, index[..., None].expand(x.shape))
