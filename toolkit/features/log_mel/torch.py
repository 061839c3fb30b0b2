"""Log-mel features in PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.features.log_mel import spec as log_mel


class LogMel(nn.Module):
    """See :class:`toolkit.features.log_mel.spec.LogMel`.

    Args:
        spec: the neutral description.
        state: result of ``spec.load``.
    """

    like: Tensor

    def __init__(self, spec: log_mel.LogMel, state: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.spec = spec
        constants = {"window": spec.window_function(), "mel": spec.mel_matrix(), **state}
        for name, array in constants.items():
            # float64 stored as integers: follows the module to a device, but not to another precision
            self.register_buffer(f"{name}_bits", torch.from_numpy(array).view(torch.int64), persistent=False)
        self.register_buffer("like", torch.empty(0), persistent=False)  # has the precision of the module

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        time_masks: Tensor | None = None,
        frequency_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the features of a batch.

        Args:
            waveforms: ``(batch, samples)``, full scale 1.0.
            lengths: ``(batch,)`` samples.
            time_masks: ``(batch, masks, 2)`` int, (first frame, frames); None = no masks.
            frequency_masks: ``(batch, masks, 2)`` int, (first band, bands); None = no masks.

        Returns:
            ``(batch, frames, mel)``, zero where masked and beyond the end, and ``(batch,)`` frames.
        """
        spec = self.spec
        frames = waveforms.double().unfold(1, spec.window_samples, spec.hop_samples) * self._constant("window")
        spectrum = torch.fft.rfft(frames, spec.fft)
        power = spectrum.real.square() + spectrum.imag.square()
        values = torch.log(torch.clamp(power @ self._constant("mel"), min=spec.log_floor))
        frame_lengths = spec.frames(lengths)
        time, band = (torch.arange(n, device=values.device) for n in values.shape[1:])
        valid = time < frame_lengths[:, None]
        values = self._normalize(values, valid[..., None], frame_lengths)
        keep = (valid if time_masks is None else valid & ~_covered(time_masks, time))[:, :, None]
        if frequency_masks is not None:
            keep = keep & ~_covered(frequency_masks, band)[:, None, :]
        return torch.where(keep, values, 0.0).to(self.like.dtype), frame_lengths

    def _normalize(self, values: Tensor, valid: Tensor, lengths: Tensor) -> Tensor:
        if self.spec.normalize == "utterance":
            count = lengths.clamp(min=1)[:, None, None]
            mean = torch.where(valid, values, 0.0).sum(1, keepdim=True) / count
            values = values - mean
            variance = torch.where(valid, values, 0.0).square().sum(1, keepdim=True) / count
            return values / torch.sqrt(variance + self.spec.epsilon)
        if self.spec.normalize == "training_set":
            return (values - self._constant("mean")) / torch.sqrt(self._constant("variance") + self.spec.epsilon)
        return values

    def _constant(self, name: str) -> Tensor:
        return self.get_buffer(f"{name}_bits").view(torch.float64)


def _covered(masks: Tensor, index: Tensor) -> Tensor:
    """Mark positions within a mask: ``(batch, masks, 2)``, ``(positions,)`` -> ``(batch, positions)`` bool."""
    first, width = masks[:, :, 0, None], masks[:, :, 1, None]
    return ((index >= first) & (index < first + width)).any(1)
