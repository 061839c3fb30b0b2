"""Self-contained HTML pages, with tables and plots inline."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE, RED, BLUE, GREEN, VIOLET = "#1f2933", "#9aa5b1", "#c0392b", "#1f6fb2", "#2f855a", "#7b4fb5"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #9aa5b1; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.yes { color: #2f855a; font-weight: 600; } .no { color: #c0392b; font-weight: 600; }
img { width: 100%; } code, pre { font: 13px/1.45 ui-monospace, monospace; } pre { white-space: pre-wrap; }
.note { color: #52606d; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """Return a page from its body's ``parts``, which are HTML."""
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def html_table(headings: Sequence[str], cells: Iterable[Sequence[str]], numbers: Sequence[int]) -> str:
    """Return a table.

    Args:
        headings: of the columns; all empty for a table without a head.
        cells: rows of text; "passed" and "FAILED" are coloured.
        numbers: columns to align to the right.
    """

    def line(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{kind(i, cell)}>{html.escape(cell)}</{tag}>" for i, cell in enumerate(row))

    def kind(i: int, cell: str) -> str:
        name = {"passed": "yes", "FAILED": "no"}.get(cell, "n" if i in numbers else "")
        return f' class="{name}"' if name else ""

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in cells)
    head = f"<tr>{line(headings, 'th')}</tr>" if any(headings) else ""
    return f"<table>{head}{body}</table>"


def figure(height: float) -> tuple[Figure, Axes]:
    """Create a figure of ``height`` inches with one plot.

    Returns:
        the figure and its axes.
    """
    from matplotlib.figure import Figure

    plot = Figure(figsize=(10, height), dpi=110, layout="constrained")
    axes = plot.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return plot, axes


def inline_image(plot: Figure) -> str:
    """Return a figure as an inline PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    out = io.BytesIO()
    FigureCanvasAgg(plot).print_png(out, metadata={"Software": None})
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'


def legend(axes: Axes, columns: int) -> None:
    """Draw the legend above the plot."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=9, borderaxespad=0.2)
