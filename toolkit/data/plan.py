"""Which examples, in which order, in which batch: a pure function of (lengths, seed, epoch, budget).

Both loaders consume the same plan. Every epoch has the same number of batches, so the position of a run is
(epoch, batch) and any position is reached without replaying what came before.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass

import numpy as np

JITTER = 0.1  # how far, relative to its length, an example may move in the order by length
# Where batches are to have few shapes, lengths are rounded up to a geometric series: each grows by a quarter at most
# and a ninth in the mean, and nine times a length is ten edges away. Below 8 the integers are further apart than that.
RATIO, SHORTEST = 1.25, 8


def rounded(lengths: np.ndarray) -> np.ndarray:
    """Integer lengths ``(examples,)``, each up to the next edge; the last edge is the greatest of them."""
    greatest, edges = int(lengths.max(initial=0)), [SHORTEST]
    while edges[-1] < greatest:
        edges.append(math.ceil(RATIO * edges[-1]))
    return np.minimum(np.array(edges)[np.searchsorted(edges, lengths)], greatest)


@dataclass(frozen=True)
class Plan:
    """Batches of similar length under a budget, reshuffled every epoch.

    Args:
        lengths: ``(examples,)`` length of each example, in the unit of the budget.
        budget: largest (number of examples) x (longest example) of a batch; None: no bound.
        most: largest number of examples of a batch.
        seed: seed of the shuffling.
        padded: ``(examples,)`` what each length is :func:`rounded` to. It takes the place of the length, and examples
            move among those of the same alone: at every place of the order by length the batch has one size in all
            epochs. None: the lengths themselves.
        multiple: the number of examples of a batch is a multiple of it, where the budget has room for so many and so
            many are left.
    """

    lengths: np.ndarray
    budget: float | None
    most: int
    seed: int
    padded: np.ndarray | None = None
    multiple: int = 1

    def __post_init__(self) -> None:
        # Ordered by length x (1 + JITTER u), 0 <= u < 1, the example at rank r is at most (1 + JITTER) times as long
        # as the one at rank r of the plain order. So batches cut from the plain order under budget / (1 + JITTER)
        # keep the budget in every epoch, and their number never changes.
        ordered = np.sort(self.lengths if self.padded is None else self.padded)
        budget = math.inf if self.budget is None else self.budget / (1 + JITTER if self.padded is None else 1)
        object.__setattr__(self, "sizes", _cut(ordered, budget, self.most, self.multiple))

    sizes: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.sizes)

    @property
    def digest(self) -> str:
        """Equal for plans that make the same batches."""
        settings = f"{self.budget} {self.most} {self.seed} {JITTER} ".encode()
        if self.padded is not None:
            settings += f"{self.multiple} ".encode() + np.ascontiguousarray(self.padded).tobytes()
        return hashlib.sha256(settings + np.ascontiguousarray(self.lengths).tobytes()).hexdigest()

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch: arrays of positions in the split."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        draws = rng.random(len(self.lengths))
        if self.padded is None:
            order = np.argsort(self.lengths * (1 + JITTER * draws), kind="stable")
        else:
            order = np.lexsort((draws, self.padded))
        batches = np.split(order, np.cumsum(self.sizes)[:-1])
        return [batches[i] for i in rng.permutation(len(batches))]

    def in_order(self) -> list[np.ndarray]:
        """The batches for an evaluation: by length, longest first, never shuffled."""
        order = np.argsort(self.lengths, kind="stable")
        return np.split(order, np.cumsum(self.sizes)[:-1])[::-1]


def columns(
    lengths: np.ndarray, starts: np.ndarray, budget: float | None, most: int, key: list[int]
) -> list[np.ndarray]:
    """Batches of a pool whose examples come from several lanes: each has as many of every lane, as far as they reach.

    The j-th longest examples of all lanes are a column; a batch takes whole columns, unless one of them alone is beyond
    the budget. So a process that reads some of the lanes has the same share of every batch.

    Args:
        lengths: ``(examples,)`` lane after lane.
        starts: ``(lanes + 1,)`` where each lane begins, and the end of the last.
        budget, most: see :class:`Plan`.
        key: of the shuffling.

    Returns:
        positions in the pool, within a batch in their order.
    """
    rng = np.random.Generator(np.random.Philox(key=np.random.SeedSequence(key).generate_state(2, np.uint64)))
    noisy = lengths * (1 + JITTER * rng.random(len(lengths)))
    lanes = [np.arange(a, b)[np.argsort(-noisy[a:b], kind="stable")] for a, b in itertools.pairwise(starts)]
    budget = math.inf if budget is None else budget
    batches: list[list[int]] = []
    here: list[int] = []
    for column in itertools.zip_longest(*lanes):
        rows = [int(i) for i in column if i is not None]
        if here and _over(lengths, here + rows, budget, most):
            batches.append(here)
            here = []
        if not here and _over(lengths, rows, budget, most):
            size = max(1, int(min(most, budget / max(float(lengths[rows].max()), 1e-9))))
            batches += [rows[i : i + size] for i in range(0, len(rows), size)]
        else:
            here += rows
    batches += [here] if here else []
    return [np.sort(np.array(batches[i])) for i in rng.permutation(len(batches))]


def _over(lengths: np.ndarray, rows: list[int], budget: float, most: int) -> bool:
    return len(rows) > most or len(rows) * float(lengths[rows].max()) > budget


def _cut(ordered: np.ndarray, budget: float, most: int, multiple: int) -> tuple[int, ...]:
    """Sizes of the batches, cut from the longest down so that the odd batch holds the shortest examples."""
    sizes: list[int] = []
    end = len(ordered)
    while end > 0:
        size = max(1, int(min(most, budget / max(float(ordered[end - 1]), 1e-9), end)))
        size = min(size, end)
        sizes.append(size - size % multiple if size > multiple else size)
        end -= sizes[-1]
    return tuple(reversed(sizes))


def padding_efficiency(lengths: np.ndarray, batches: list[np.ndarray], padded: np.ndarray | None = None) -> float:
    """Share of the batches' area that is data and not padding; ``padded`` is the plan's."""
    widths = lengths if padded is None else padded
    area = sum(len(b) * float(widths[b].max()) for b in batches)
    return float(lengths.sum()) / area
