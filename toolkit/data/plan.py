"""The order of examples and their batches: a pure function of (lengths, seed, epoch, budget).

Both loaders consume the same plan. Every epoch has the same number of batches, so the position of a run is
(epoch, batch), and a run resumes at any position without replaying the batches before it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass, field

import numpy as np

JITTER = 0.1  # largest relative change of a length before examples are sorted by it
# To give batches few shapes, lengths are rounded up to a geometric series that starts at 8: each grows by at most a
# quarter, by a ninth on average, and ten edges span a factor of nine. Integers below 8 are further apart than that.
RATIO, SHORTEST = 1.25, 8


def rounded(lengths: np.ndarray) -> np.ndarray:
    """Round integer lengths ``(examples,)`` up to the next edge; the last edge is the greatest length."""
    greatest, edges = int(lengths.max(initial=0)), [SHORTEST]
    while edges[-1] < greatest:
        edges.append(math.ceil(RATIO * edges[-1]))
    return np.minimum(np.array(edges)[np.searchsorted(edges, lengths)], greatest)


@dataclass(frozen=True)
class Plan:
    """Batches of similar length under a budget, reshuffled every epoch.

    Args:
        lengths: ``(examples,)`` length of each example, in the unit of the budget.
        budget: bound on (number of examples) x (longest example) of a batch; None: no bound.
        most: largest number of examples of a batch.
        seed: seed of the shuffling.
        padded: ``(examples,)`` the :func:`rounded` lengths, which replace the lengths. Only examples of equal rounded
            length are shuffled, so the n-th batch by length has the same size in all epochs. None: use the lengths.
        multiple: the number of examples of a batch is a multiple of this, if the budget allows that many and that many
            are left.
    """

    lengths: np.ndarray
    budget: float | None
    most: int
    seed: int
    padded: np.ndarray | None = None
    multiple: int = 1
    sizes: tuple[int, ...] = field(init=False)  # of the batches, in ascending order of length

    def __post_init__(self) -> None:
        # Ordered by length x (1 + JITTER u), 0 <= u < 1, the example at rank r is at most (1 + JITTER) times as long
        # as the one at rank r of the order by length. So batches cut from that order under budget / (1 + JITTER) stay
        # within the budget in every epoch, and their number is constant.
        ordered = np.sort(self.lengths if self.padded is None else self.padded)
        budget = math.inf if self.budget is None else self.budget / (1 + JITTER if self.padded is None else 1)
        object.__setattr__(self, "sizes", _cut(ordered, budget, self.most, self.multiple))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.sizes)

    @property
    def digest(self) -> str:
        """A hash that is equal for plans with the same batches."""
        settings = f"{self.budget} {self.most} {self.seed} {JITTER} ".encode()
        if self.padded is not None:
            settings += f"{self.multiple} ".encode() + np.ascontiguousarray(self.padded).tobytes()
        return hashlib.sha256(settings + np.ascontiguousarray(self.lengths).tobytes()).hexdigest()

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch: arrays of positions in the split."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        draws = rng.random(len(self.lengths))
        if self.padded is None:
            order = np.argsort(self.lengths * (1 + JITTER * draws), kind="stable")
        else:
            order = np.lexsort((draws, self.padded))
        batches = np.split(order, np.cumsum(self.sizes)[:-1])
        return [batches[i] for i in rng.permutation(len(batches))]

    def in_order(self) -> list[np.ndarray]:
        """Return the batches for an evaluation: by length, longest first, never shuffled."""
        order = np.argsort(self.lengths, kind="stable")
        return np.split(order, np.cumsum(self.sizes)[:-1])[::-1]


def cut_lanes(
    lengths: np.ndarray, starts: np.ndarray, budget: float | None, most: int, key: list[int]
) -> list[np.ndarray]:
    """Cut a pool of several lanes into batches, each with equally many examples of every lane while they last.

    The j-th longest examples of all lanes form a group. A batch takes whole groups, unless a single group exceeds the
    budget. So a process that reads some of the lanes has the same share of every batch.

    Args:
        lengths: ``(examples,)`` lane after lane.
        starts: ``(lanes + 1,)`` the start of each lane, and the end of the last.
        budget, most: see :class:`Plan`.
        key: of the shuffling.

    Returns:
        positions in the pool, ascending within each batch.
    """
    rng = np.random.Generator(np.random.Philox(key=np.random.SeedSequence(key).generate_state(2, np.uint64)))
    noisy = lengths * (1 + JITTER * rng.random(len(lengths)))
    lanes = [np.arange(a, b)[np.argsort(-noisy[a:b], kind="stable")] for a, b in itertools.pairwise(starts)]
    budget = math.inf if budget is None else budget
    batches: list[list[int]] = []
    current: list[int] = []
    for group in itertools.zip_longest(*lanes):
        rows = [int(i) for i in group if i is not None]
        if current and _over(lengths, current + rows, budget, most):
            batches.append(current)
            current = []
        if not current and _over(lengths, rows, budget, most):
            size = max(1, int(min(most, budget / max(float(lengths[rows].max()), 1e-9))))
            batches += [rows[i : i + size] for i in range(0, len(rows), size)]
        else:
            current += rows
    batches += [current] if current else []
    return [np.sort(np.array(batches[i])) for i in rng.permutation(len(batches))]


def _over(lengths: np.ndarray, rows: list[int], budget: float, most: int) -> bool:
    return len(rows) > most or len(rows) * float(lengths[rows].max()) > budget


def _cut(ordered: np.ndarray, budget: float, most: int, multiple: int) -> tuple[int, ...]:
    """Return the sizes of batches, cut from the longest down so that the leftover batch has the shortest examples."""
    sizes: list[int] = []
    end = len(ordered)
    while end > 0:
        size = max(1, int(min(most, budget / max(float(ordered[end - 1]), 1e-9), end)))
        sizes.append(size - size % multiple if size > multiple else size)
        end -= sizes[-1]
    return tuple(reversed(sizes))


def padding_efficiency(lengths: np.ndarray, batches: list[np.ndarray], padded: np.ndarray | None = None) -> float:
    """Return the share of the batches' area that is not padding; ``padded`` is the plan's."""
    widths = lengths if padded is None else padded
    area = sum(len(b) * float(widths[b].max()) for b in batches)
    return float(lengths.sum()) / area
