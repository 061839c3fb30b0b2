"""Compare two recordings step by step, and name the first place where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolkit.certify import gates
from toolkit.certify.stream import Arrays

# kind of array -> its name in reports; an array of a recording is named by its kind, or "kind/name"
KINDS = {
    "intermediate": "intermediate",
    "loss": "loss",
    "gradient": "gradient",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "moment": "optimizer moment",
    "weight": "weight",
    "statistic": "running statistic",
    "average": "averaged weight",
}


@dataclass(frozen=True)
class Gap:
    """Difference between the twins in one array.

    Args:
        step: optimizer step, counted from 1.
        kind: of ``KINDS``.
        name: canonical name; empty for a figure of the whole step.
        gap: relative difference; infinite if a value is not finite or there is nothing to compare.
        note: the reason for an infinite gap.
    """

    step: int
    kind: str
    name: str
    gap: float
    note: str = ""

    def __str__(self) -> str:
        array = f"{KINDS[self.kind]} {self.name}".strip()
        return f"step {self.step}, {array}: " + (self.note or f"{self.gap:.2g} apart, relative")


@dataclass
class Comparison:
    """Gaps between two recordings so far, in their order.

    Args:
        limit: a larger gap is a mismatch.
        first_step: every gap in the inputs of the first update.
        worst: kind -> the largest gap of each step.
        first: the first gap beyond the limit.
        unjudged: parameters whose gradient is zero, see :data:`toolkit.certify.gates.ZERO_GRADIENT`.
        stopped: one of the recordings ends early.
        sides: names of the two recordings.
    """

    limit: float
    first_step: list[Gap] = field(default_factory=list)
    worst: dict[str, list[Gap]] = field(default_factory=dict)
    first: Gap | None = None
    unjudged: list[str] = field(default_factory=list)
    stopped: bool = False
    sides: tuple[str, str] = ("torch", "tf")

    def add(self, step: int, torch: Mapping[str, np.ndarray], tf: Mapping[str, np.ndarray]) -> None:
        """Compare a step of both recordings; step 0 has the inputs of the first update."""
        if not step:
            self.unjudged = without_gradient(torch, tf)
        gaps = list(self._gaps(max(step, 1), torch, tf))
        if not step:
            self.first_step = gaps
        for kind in KINDS:
            if same_kind := [g for g in gaps if g.kind == kind]:
                self.worst.setdefault(kind, []).append(max(same_kind, key=lambda g: g.gap))
        beyond = (g for g in gaps if not g.gap <= self.limit)
        self.first = self.first or next(beyond, None)

    def stop(self, step: int, why: str) -> None:
        """Note that one of the recordings ends before ``step``."""
        self.first, self.stopped = self.first or Gap(max(step, 1), "loss", "", np.inf, why), True

    def largest(self) -> Gap | None:
        """Return the largest gap of all kinds and steps."""
        return max((g for gaps in self.worst.values() for g in gaps), key=lambda g: g.gap, default=None)

    def _gaps(self, step: int, torch: Mapping[str, np.ndarray], tf: Mapping[str, np.ndarray]) -> Iterable[Gap]:
        for name, expected in torch.items():
            kind, _, rest = name.partition("/")
            parameter = rest.partition(".")[2] if kind == "moment" else rest
            if kind in ("gradient", "moment", "weight", "average") and parameter in self.unjudged:
                continue
            if name not in tf:
                yield Gap(step, kind, rest, np.inf, f"only {self.sides[0]} has it")
                continue
            distance, note = apart(kind, expected, tf[name], self.sides)
            yield Gap(step, kind, rest, distance, note)
        for name in tf:
            if name not in torch:
                kind, _, rest = name.partition("/")
                yield Gap(step, kind, rest, np.inf, f"only {self.sides[1]} has it")


def apart(kind: str, torch: np.ndarray, tf: np.ndarray, sides: tuple[str, str] = ("torch", "tf")) -> tuple[float, str]:
    """Return the relative distance of two arrays, and a note if it is infinite.

    For gradients it is the norm of the difference over the norm, for all other arrays the largest difference over the
    largest magnitude. Integers must be equal.
    """
    if torch.shape != tf.shape or torch.dtype.kind != tf.dtype.kind or torch.dtype.itemsize != tf.dtype.itemsize:
        types = (f"{side} has {array.dtype}{list(array.shape)}" for side, array in zip(sides, (torch, tf), strict=True))
        return np.inf, ", ".join(types)
    if torch.dtype.kind != "f":
        return (0.0, "") if np.array_equal(torch, tf) else (np.inf, "integers differ")
    torch, tf = torch.astype(np.float64).ravel(), tf.astype(np.float64).ravel()
    for backend, values in zip(sides, (torch, tf), strict=True):
        if not np.isfinite(values).all():
            return np.inf, f"not finite in {backend}"
    size = np.linalg.norm if kind == "gradient" else _largest
    difference, scale = float(size(torch - tf)), float(size(torch))
    if not difference:
        return 0.0, ""
    return (difference / scale, "") if scale else (np.inf, f"zero in {sides[0]}, not in {sides[1]}")


def _largest(values: np.ndarray) -> Any:
    return np.abs(values).max(initial=0.0)


def without_gradient(torch: Mapping[str, np.ndarray], tf: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of the parameters whose gradient is only rounding in both recordings."""

    def norms(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        sizes = {n: float(np.linalg.norm(a.ravel())) for n, a in arrays.items() if n.startswith("gradient/")}
        whole = float(np.linalg.norm(list(sizes.values())))
        return {name.partition("/")[2]: norm / whole if whole else 0.0 for name, norm in sizes.items()}

    left, right = norms(torch), norms(tf)
    small = gates.ZERO_GRADIENT
    return [n for n, norm in left.items() if 0 < norm < small and right.get(n, np.inf) < small]


def drift(curve: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return the relative difference of two curves at each step; infinite if a value is not finite."""
    a, b = np.array(curve, np.float64), np.array(reference, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.abs(a - b) / np.abs(b)
    return [
        float(x) if np.isfinite(x) else (0.0 if p == q == 0 else np.inf) for x, p, q in zip(gaps, a, b, strict=True)
    ]


def figures(arrays: Arrays) -> dict[str, float]:
    """Return the figures of a whole step."""
    return {name: float(arrays[name]) for name in ("learning_rate", "loss", "gradient_norm")}
