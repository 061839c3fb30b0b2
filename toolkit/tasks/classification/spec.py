"""One class for each picture: what is learned and how it is measured.

The loss of a picture under label smoothing (Szegedy et al. 2016, section 7) with K classes is

    (1 - eps) * -log p(class) + eps / K * sum over all classes of -log p

in nats. Where another picture is mixed in (Zhang et al. 2018, equation 1) it is ``share`` times that plus ``1 - share``
times the same for the other picture's class. The loss of a batch is the mean over its pictures. Evaluation smooths
nothing, so that its loss compares between runs.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.batch import IMAGES, Fields
from toolkit.metrics import text as metrics
from toolkit.tasks.spec import Rows, Task

LIKELIEST = 5  # classes named in a row, where there are more
LISTED = 20  # classes in the table on the console
NUMBERED = 30  # up to so many classes, the picture of the confusions says how many are in each cell
NAMED = 120  # up to so many classes, the picture names them all
NAME = 22  # characters of a class's name that picture and table have room for


@spec
class Classification(Task):
    """Pictures to classes."""

    domains: ClassVar[tuple[str, ...]] = ("images",)
    fields: ClassVar[Fields] = IMAGES

    label_smoothing: float = option(0.0, "share of the target that is spread over all classes (eps)", ge=0, lt=1)
    monitor: Literal["accuracy", "loss"] = option("accuracy", "which figure of the validation says what is best")

    def evaluate(self, engine: Any, batch: Any, tokenizer: Any, final: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        """Classify a batch: ``(example, row of the predictions)`` for each of its pictures.

        A row's ``score`` is the probability of the class found; ``top5`` are the five likeliest, best first, where
        there are more than five. Of equally likely classes the one with the lower id comes first.
        """
        out = engine.eval_step(batch)
        classes = out["log_probs"].shape[1]
        best = np.argsort(-out["log_probs"], axis=1, kind="stable")[:, :LIKELIEST]
        for example, loss, log_probs, ids in zip(out["example"], out["loss"], out["log_probs"], best, strict=True):
            names = [tokenizer.decode([int(i)]) for i in ids]
            row = {"hypothesis": names[0], "score": float(np.exp(log_probs[ids[0]])), "loss": float(loss)}
            yield int(example), row | ({"top5": names} if classes > LIKELIEST else {})

    def measure(self, rows: Rows) -> dict[str, float]:
        """Share of the pictures whose class was found; with more than five classes also the share of those whose class
        is among the five likeliest."""
        references, hypotheses = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
        found = {"accuracy": metrics.accuracy(references, hypotheses)}
        if rows and "top5" in rows[0]:
            found["top5"] = sum(row["reference"] in row["top5"] for row in rows) / len(rows)
        return found

    def detail(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the predictions file says beside a row: whether it is right."""
        return {"right": row["reference"] == row["hypothesis"]}

    def files(self, rows: Rows) -> dict[str, bytes]:
        """For the run folder: ``confusion_matrix.png``, and ``classes.csv`` with a line for each class."""
        names, counts = confusions(rows)
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(["class", "precision", "recall", "f1", "support"])
        for name, values in zip(names, per_class(counts), strict=True):
            table.writerow([name, *(f"{v:.6f}" for v in values[:3]), int(values[3])])
        return {"confusion_matrix.png": picture(names, counts), "classes.csv": text.getvalue().encode()}

    def table(self, rows: Rows) -> str:
        """Precision, recall and F1 of each class for the console; of many classes those with the lowest F1."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        names, counts = confusions(rows)
        values = per_class(counts)
        order = range(len(names)) if len(names) <= LISTED else np.argsort(values[:, 2], kind="stable")[:LISTED]
        kind = "classes" if len(names) <= LISTED else f"the {LISTED} of {len(names)} classes with the lowest F1"
        table = Table(title=f"{kind}; mean F1 of all: {100 * values[:, 2].mean():.2f} %")
        for heading in ("class", "precision", "recall", "F1", "pictures", "most often taken for"):
            text = heading in ("class", "most often taken for")
            table.add_column(heading, justify="left" if text else "right", no_wrap=True)
        for i in order:
            wrong = counts[i] * (np.arange(len(names)) != i)
            other = f"{_short(names[wrong.argmax()])} ({wrong.max():,})" if wrong.any() else ""
            rates = (f"{100 * v:.1f} %" for v in values[i, :3])
            table.add_row(Text(_short(names[i])), *rates, f"{int(values[i, 3]):,}", Text(other))
        console = Console(width=100)
        with console.capture() as captured:
            console.print(table)
        return captured.get().rstrip()


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
    """Precision, recall, F1 and pictures of each class.

    Args:
        counts: of :func:`confusions`.

    Returns:
        ``(classes, 4)``; what would be 0 / 0, as the precision of a class that was never found, is 0.
    """
    right, true, found = counts.diagonal(), counts.sum(1), counts.sum(0)
    rates = [right / np.maximum(found, 1), right / np.maximum(true, 1), 2 * right / np.maximum(true + found, 1)]
    return np.stack([*rates, true], axis=1)


def picture(names: Sequence[str], counts: np.ndarray) -> bytes:
    """The confusions as a PNG: a row for each true class, shaded by the share of it in each class found."""
    import warnings

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    size = len(names)
    cell = np.interp(size, (10, 30, 100, 1000), (0.55, 0.42, 0.17, 0.017))  # inches
    room = 0.085 * min(NAME, max(map(len, names)))  # for the names, at 10 points
    side = min(max(size * cell, 3.0), 24.0)
    large = np.interp(side, (6, 24), (11, 20))  # points of what is written around
    figure = Figure(figsize=(side + room + 2.0, side + room + 1.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # the root of a share: a few confusions would not be seen beside a diagonal of almost one
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    figure.colorbar(image, ax=axes, aspect=40, shrink=0.93, pad=0.02, format=_percent).set_label(
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
    # a dollar sign in a name begins no formula
    axes.set_xticks(ticks, short, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(ticks, short, fontsize=font, parse_math=False)
    axes.tick_params(length=2 if len(names) > NUMBERED else 3.5)
    axes.set_xlabel("class found", fontsize=large)
    axes.set_ylabel("true class", fontsize=large)


def _number(axes: Any, counts: np.ndarray, shares: np.ndarray, font: float) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=font)


def _short(name: str) -> str:
    """At most ``NAME`` characters; the end stays, where names that begin alike differ."""
    return name if len(name) <= NAME else f"{name[: NAME - 10]}…{name[-9:]}"


def _percent(share: float, position: int) -> str:
    return f"{100 * share:.0f} %"


def _natural(name: str) -> tuple[Any, ...]:
    """Sorts "class 10" after "class 9"."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(part), part) if i % 2 else part.casefold() for i, part in enumerate(parts)), name
