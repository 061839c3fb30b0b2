"""Metrics of classes: accuracy, and precision, recall and F1 of each class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.metrics.metric import Metric

ACCURACY, TOP5 = Metric("accuracy", "larger"), Metric("top5", "larger")
Rows = Sequence[Mapping[str, Any]]  # each has "reference" and "hypothesis"


def accuracy(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the fraction of correct hypotheses; 0 for an empty list.

    Raises:
        ValueError: the numbers of references and hypotheses differ.
    """
    right = sum(r == h for r, h in zip(references, hypotheses, strict=True))
    return right / max(1, len(references))


def confusions(rows: Rows) -> tuple[list[str], np.ndarray]:
    """Count the confusions of classes.

    Returns:
        the names of all classes that occur, in natural order, and ``(true class, predicted class)`` counts.
    """
    names = sorted({row[side] for row in rows for side in ("reference", "hypothesis")}, key=_natural)
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for row in rows:
        counts[place[row["reference"]], place[row["hypothesis"]]] += 1
    return names, counts


def per_class(counts: np.ndarray) -> np.ndarray:
    """Compute precision, recall, F1 and number of examples of each class.

    Args:
        counts: of :func:`confusions`.

    Returns:
        ``(classes, 4)``; 0 / 0 is 0, such as the precision of a class that was never predicted.
    """
    right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    rates = [right / np.maximum(predicted, 1), right / np.maximum(true, 1), 2 * right / np.maximum(true + predicted, 1)]
    return np.stack([*rates, true], axis=1)


def _natural(name: str) -> tuple[Any, ...]:
    """Return a key that sorts "class 10" after "class 9"."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(part), part) if i % 2 else part.casefold() for i, part in enumerate(parts)), name
