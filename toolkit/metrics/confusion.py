"""The confusion matrix as an image, and the table of classes for the console."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.metrics.classes import per_class

LISTED = 20  # classes in the table on the console
NUMBERED = 30  # most classes for which each cell of the image has its number
NAMED = 120  # most classes that the image names all
NAME = 22  # most characters of a class name in image and table


def image(names: Sequence[str], counts: np.ndarray) -> bytes:
    """Draw the confusion matrix as a PNG: a row for each true class, shaded by the share of each predicted class."""
    import warnings

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    size = len(names)
    cell = np.interp(size, (10, 30, 100, 1000), (0.55, 0.42, 0.17, 0.017))  # inches
    room = 0.085 * min(NAME, max(map(len, names)))  # for the names, at 10 points
    side = min(max(size * cell, 3.0), 24.0)
    large = np.interp(side, (6, 24), (11, 20))  # font size of labels and title, in points
    figure = Figure(figsize=(side + room + 2.0, side + room + 1.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # shaded by the square root of the share: else rare confusions are invisible beside a diagonal near one
    shown = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    figure.colorbar(shown, ax=axes, aspect=40, shrink=0.93, pad=0.02, format=_percent).set_label(
        "share of the true class", fontsize=large
    )
    _name(axes, names, font=min(10.0, 0.8 * 72 * cell), large=large)
    if size <= NUMBERED:
        _number(axes, counts, shares, font=min(9.0, 0.27 * 72 * cell))
    right, total = int(counts.trace()), int(counts.sum())
    axes.set_title(f"{right:,} of {total:,} right ({100 * right / max(total, 1):.2f} %)", fontsize=large)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks
        FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()


def _name(axes: Any, names: Sequence[str], font: float, large: float) -> None:
    step = -(-len(names) // NAMED)
    ticks = range(0, len(names), step)
    short = [_short(name) for name in names[::step]]
    font = min(10.0, font * step)
    # a dollar sign in a name does not start a formula
    axes.set_xticks(ticks, short, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(ticks, short, fontsize=font, parse_math=False)
    axes.tick_params(length=2 if len(names) > NUMBERED else 3.5)
    axes.set_xlabel("predicted class", fontsize=large)
    axes.set_ylabel("true class", fontsize=large)


def _number(axes: Any, counts: np.ndarray, shares: np.ndarray, font: float) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=font)


def _short(name: str) -> str:
    """Shorten a name to ``NAME`` characters; the end stays, because names often differ only there."""
    return name if len(name) <= NAME else f"{name[: NAME - 10]}…{name[-9:]}"


def _percent(share: float, position: int) -> str:
    return f"{100 * share:.0f} %"


def table(names: Sequence[str], counts: np.ndarray) -> str:
    """Return precision, recall and F1 of each class, or of those with the lowest F1 if there are many, for the console.

    Args:
        names, counts: of :func:`toolkit.metrics.classes.confusions`.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    values = per_class(counts)
    order = range(len(names)) if len(names) <= LISTED else np.argsort(values[:, 2], kind="stable")[:LISTED]
    kind = "classes" if len(names) <= LISTED else f"the {LISTED} of {len(names)} classes with the lowest F1"
    grid = Table(title=f"{kind}; mean F1 of all: {100 * values[:, 2].mean():.2f} %")
    for heading in ("class", "precision", "recall", "F1", "examples", "most often taken for"):
        text = heading in ("class", "most often taken for")
        grid.add_column(heading, justify="left" if text else "right", no_wrap=True)
    for i in order:
        wrong = counts[i] * (np.arange(len(names)) != i)
        other = f"{_short(names[wrong.argmax()])} ({wrong.max():,})" if wrong.any() else ""
        rates = (f"{100 * v:.1f} %" for v in values[i, :3])
        grid.add_row(Text(_short(names[i])), *rates, f"{int(values[i, 3]):,}", Text(other))
    console = Console(width=100)
    with console.capture() as captured:
        console.print(grid)
    return captured.get().rstrip()
