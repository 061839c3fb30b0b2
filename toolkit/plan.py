"""Which examples, in which order, in which batch: a pure function of (lengths, seed, epoch, budget).

Both loaders consume the same plan. Every epoch has the same number of batches, so the position of a run is
(epoch, batch) and any position is reached without replaying what came before.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

JITTER = 0.1  # how far, relative to its length, an example may move in the order by length


@dataclass(frozen=True)
class Plan:
    """Batches of similar length under a budget, reshuffled every epoch.

    Args:
        lengths: ``(examples,)`` length of each example, in the unit of the budget.
        budget: largest (number of examples) x (longest example) of a batch; None: no bound.
        most: largest number of examples of a batch.
        seed: seed of the shuffling.
    """

    lengths: np.ndarray
    budget: float | None
    most: int
    seed: int

    def __post_init__(self) -> None:
        # Ordered by length x (1 + JITTER u), 0 <= u < 1, the example at rank r is at most (1 + JITTER) times as long
        # as the one at rank r of the plain order. So batches cut from the plain order under budget / (1 + JITTER)
        # keep the budget in every epoch, and their number never changes.
        ordered = np.sort(self.lengths)
        budget = math.inf if self.budget is None else self.budget / (1 + JITTER)
        object.__setattr__(self, "sizes", _cut(ordered, budget, self.most))

    sizes: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.sizes)

    @property
    def digest(self) -> str:
        """Equal for plans that make the same batches."""
        settings = f"{self.budget} {self.most} {self.seed} {JITTER} ".encode()
        return hashlib.sha256(settings + np.ascontiguousarray(self.lengths).tobytes()).hexdigest()

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch: arrays of positions in the split."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        order = np.argsort(self.lengths * (1 + JITTER * rng.random(len(self.lengths))), kind="stable")
        batches = np.split(order, np.cumsum(self.sizes)[:-1])
        return [batches[i] for i in rng.permutation(len(batches))]

    def in_order(self) -> list[np.ndarray]:
        """The batches for an evaluation: by length, longest first, never shuffled."""
        order = np.argsort(self.lengths, kind="stable")
        return np.split(order, np.cumsum(self.sizes)[:-1])[::-1]


def _cut(ordered: np.ndarray, budget: float, most: int) -> tuple[int, ...]:
    """Sizes of the batches, cut from the longest down so that the odd batch holds the shortest examples."""
    sizes: list[int] = []
    end = len(ordered)
    while end > 0:
        size = max(1, int(min(most, budget / max(float(ordered[end - 1]), 1e-9), end)))
        sizes.append(min(size, end))
        end -= sizes[-1]
    return tuple(reversed(sizes))


def padding_efficiency(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Share of the batches' area that is data and not padding."""
    area = sum(len(b) * float(lengths[b].max()) for b in batches)
    return float(lengths.sum()) / area
