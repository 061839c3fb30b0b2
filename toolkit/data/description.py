"""Descriptions of a column's values, which ``check=true`` prints and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SPREAD = "min / median / 95 % / max"  # the order of the numbers of :func:`spread`


@dataclass(frozen=True)
class Histogram:
    """A number for each value.

    Args:
        title: name of the number: "length of a recording".
        unit: of the number: "s", "tokens".
        values: ``(values,)``; integers or floats.
    """

    title: str
    unit: str
    values: np.ndarray


@dataclass(frozen=True)
class Counts:
    """Occurrences of characters, classes or similar things.

    Args:
        title: name of the things, in the plural.
        counts: their number by name.
    """

    title: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Description:
    """The values of one column in one split.

    Args:
        facts: label and text of each row of a table.
        sizes: size of each value. If both columns have one, their ratio is described too.
        histograms: more numbers of each value.
        counts: of the things that the values consist of.
    """

    facts: tuple[tuple[str, str], ...] = ()
    sizes: Histogram | None = None
    histograms: tuple[Histogram, ...] = ()
    counts: tuple[Counts, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One value to read, to see or to hear.

    Args:
        text: of the value; empty if the media show it.
        media: content of a file that browsers show; empty for text.
        mime: type of the media.
    """

    text: str = ""
    media: bytes = b""
    mime: str = ""


def spread(values: np.ndarray, digits: int = 0) -> str:
    """Return the numbers that ``SPREAD`` names.

    Args:
        values: ``(values,)``, at least one.
        digits: after the decimal point.
    """
    numbers = (values.min(), np.median(values), np.quantile(values, 0.95), values.max())
    return " / ".join(f"{number:,.{digits}f}" for number in numbers)
