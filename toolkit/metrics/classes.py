"""Metrics of classes: accuracy, and precision, recall and F1 of each class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.metrics.metric import Metric
from toolkit.metrics.text import cleaned

ACCURACY, TOP5 = Metric("accuracy", "larger"), Metric("top5", "larger")
Rows = Sequence[Mapping[str, Any]]  # each has "reference" and "hypothesis"


def accuracy(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Share of the hypotheses that are wholly right, as a fraction; 0 of an empty list.

    Raises:
        ValueError: there are not as many hypotheses as references.
    """
    right = sum(cleaned(r) == cleaned(h) for r, h in zip(references, hypotheses, strict=True))
    return right / max(1, len(references))


def confusions(rows: Rows) -> tuple[list[str], np.ndarray]:
    """Count what was taken for what.

    Returns:
        the names of all classes that occur, in natural order, and ``(true class, class found)`` counts.
    """
    names = sorted({row[side] for row in rows for side in ("reference", "hypothesis")}, key=_natural)
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for row in rows:
        counts[place[row["reference"]], place[row["hypothesis"]]] += 1
    return names, counts


def per_class(counts: np.ndarray) -> np.ndarray:
    """Precision, recall, F1 and number of examples of each class.

    Args:
        counts: of :func:`confusions`.

    Returns:
        ``(classes, 4)``; what would be 0 / 0, as the precision of a class that was never found, is 0.
    """
    right, true, found = counts.diagonal(), counts.sum(1), counts.sum(0)
    rates = [right / np.maximum(found, 1), right / np.maximum(true, 1), 2 * right / np.maximum(true + found, 1)]
    return np.stack([*rates, true], axis=1)


def _natural(name: str) -> tuple[Any, ...]:
    """Sorts "class 10" after "class 9"."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(part), part) if i % 2 else part.casefold() for i, part in enumerate(parts)), name
