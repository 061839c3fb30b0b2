"""The position of a run in its training data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """The next batch of a run.

    Args:
        step: optimizer steps done.
        epoch, batch: number of the next batch in the plan of its epoch; with a stream, in the current pool.
        stream: start of the current pool (``toolkit/data/stream.py``); empty at the start of an epoch.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    stream: dict[str, Any] = field(default_factory=dict)
