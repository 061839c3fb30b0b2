"""The mutable state of a training, which a checkpoint holds: its progress, and the state of its engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolkit.data.position import Position

Tensors = dict[str, np.ndarray]


@dataclass
class Progress(Position):
    """Progress of a run; ``state.json`` holds all of it.

    Args:
        best, best_loss, best_step: best value of the monitored metric, the loss that came with it, and the step that
            reached both.
        stale: validations since then.
        validated: step of the last validation.
        scale: loss scale; None where the precision needs none.
        good: steps with finite gradients since the scale last changed.
        log_bytes: length of each log of the run folder, by file name. Equality ignores it, because the times in the
            logs vary in length.
        facts: what the position depends on: fingerprint of the data, seed, digest of the plan, and so on.
    """

    best: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    stale: int = 0
    validated: int | None = None
    scale: float | None = None
    good: int = 0
    log_bytes: dict[str, int] = field(default_factory=dict, compare=False)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class State:
    """Arrays of an engine, by canonical name: weights, moments of the optimizer, and averaged weights, if any."""

    model: Tensors
    optimizer: Tensors
    ema: Tensors = field(default_factory=dict)
