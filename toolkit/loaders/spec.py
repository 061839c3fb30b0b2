"""From positions in a split to a batch: framework-neutral, picklable, the same for both loaders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.batch import Batch, pad


@dataclass(frozen=True)
class Collator:
    """Gathers the examples of a batch.

    Args:
        split: the split (``toolkit.speech.Split``).
        tokens: token ids of every example of the split.
        features: the feature spec, which draws the augmentation.
        seed: seed of the augmentation; None for an evaluation, which draws nothing.
    """

    split: Any
    tokens: list[np.ndarray]
    features: Any
    seed: int | None

    def __call__(self, positions: np.ndarray, epoch: int) -> Batch:
        waveforms, waveform_lengths = pad([self.split.waveform(int(i)) for i in positions], np.float32)
        tokens, token_lengths = pad([self.tokens[int(i)] for i in positions], np.int32)
        time_masks, frequency_masks = self._masks(positions, waveform_lengths, epoch)
        return {
            "example": np.asarray(positions, np.int64),
            "waveforms": waveforms,
            "waveform_lengths": waveform_lengths,
            "tokens": tokens,
            "token_lengths": token_lengths,
            "time_masks": time_masks,
            "frequency_masks": frequency_masks,
        }

    def _masks(self, positions: np.ndarray, samples: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if self.seed is None:
            none = np.zeros((len(positions), 1, 2), np.int32)
            return none, none
        frames = self.features.frames(samples)
        drawn = [self.features.draw(int(f), self.seed, epoch, int(i)) for f, i in zip(frames, positions, strict=True)]
        return np.stack([t for t, _ in drawn]), np.stack([f for _, f in drawn])
