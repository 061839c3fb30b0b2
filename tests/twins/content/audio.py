"""Made utterances."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.twins.content.base import ROWS, SEED, Content, learned_features, random
from toolkit.data.batch import Batch, pad

EPOCH = 3
SECONDS = (0.8, 0.45, 1.1, 0.6)  # of the utterances


def waveform(row: int) -> np.ndarray:
    """A made utterance: a gliding voice with harmonics in syllables, and a little noise."""
    draw = random(row, 17)
    time = np.arange(int(SECONDS[row] * 16000)) / 16000
    phase = 2 * np.pi * np.cumsum(draw.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * time))) / 16000
    voice = sum(np.sin(k * phase + draw.uniform(0, 6)) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * draw.uniform(2, 5) * time), 0, 1)
    return (0.1 * voice * syllables + 0.003 * draw.standard_normal(len(time))).astype(np.float32)


def speech(features: Any, rows: Sequence[int], training: bool) -> Batch:
    """Made utterances, in training with masks."""
    waveforms, lengths = pad([waveform(row) for row in rows], np.float32)
    made: Batch = {"waveforms": waveforms, "waveform_lengths": lengths}
    if training:
        frames = zip(features.frames(lengths), rows, strict=True)
        draws = [features.draw(int(count), SEED, EPOCH, row) for count, row in frames]
        made |= {"time_masks": np.stack([t for t, _ in draws]), "frequency_masks": np.stack([b for _, b in draws])}
    return made


CONTENT = Content(
    lambda features, role, rows, training: speech(features, rows, training),
    lambda features, role: learned_features(features, map(waveform, ROWS)),
    {"input": {"waveforms": 9000}},
)
