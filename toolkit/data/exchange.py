"""Exchange of plain data between the processes of a run."""

from __future__ import annotations

import json
from typing import Any, Protocol

import numpy as np


class Ranks(Protocol):
    """The processes of a run, seen from one of them; every engine is one."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def ranks(self) -> int:
        """Number of processes."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum ``(n,)`` values over all processes. Every process must call it, and gets the same sum."""


def gather(ranks: Ranks, rows: list[Any]) -> list[Any]:
    """Collect the rows of all processes in every process.

    Args:
        ranks: the processes; each of them must call this.
        rows: of this process, as plain JSON data.

    Returns:
        the rows of all processes, in the order of the ranks.
    """
    if ranks.ranks == 1:
        return rows
    text = np.frombuffer(json.dumps(rows).encode(), np.uint8)
    sizes = ranks.total(len(text) * (np.arange(ranks.ranks) == ranks.rank)).astype(np.int64)
    ends = np.cumsum(sizes)
    sent = np.zeros(ends[-1])
    sent[ends[ranks.rank] - len(text) : ends[ranks.rank]] = text
    texts = np.split(ranks.total(sent).astype(np.uint8), ends[:-1])
    return [row for text in texts for row in json.loads(text.tobytes())]
