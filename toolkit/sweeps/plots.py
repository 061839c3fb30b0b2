"""Plots of a sweep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.reports.html import BLUE, INK, PALE, RED, figure, legend
from toolkit.sweeps import search, state
from toolkit.sweeps.state import Objective, State, Trial

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = {"torch": RED, "tf": BLUE}
FEW = 4  # marks below a narrow plot


def numbers(values: Sequence[str]) -> list[float] | None:
    """Convert the values of an axis to numbers; None if a value is not a number."""
    try:
        floats = [float(value) for value in values]
    except ValueError:
        return None
    return floats if all(map(math.isfinite, floats)) else None


def logarithmic(sweep: State, key: str, values: Sequence[float]) -> bool:
    """Tell if an axis needs powers of ten: it was searched by its logarithm, or spans orders of magnitude."""
    by_logarithm = any(axis["key"] == key and axis["log"] for axis in sweep.identity.get("axes", ()))
    return min(values) > 0 and (by_logarithm or max(values) / min(values) >= 30)


def marks(values: Sequence[float], logs: bool) -> list[float] | None:
    """Choose the ticks of an axis: the values where they are few, short and apart; round ones on a logarithmic axis;
    None where matplotlib chooses well."""
    levels = sorted(set(values))
    heights = scaled([math.log(value) for value in levels] if logs else levels)
    apart = all(after - before >= 0.2 for before, after in itertools.pairwise(heights))
    if len(levels) <= FEW and apart and all(len(f"{value:g}") <= 6 for value in levels):
        return levels
    if not logs:
        return None
    low, high = (math.floor(math.log10(value)) for value in (levels[0], levels[-1]))
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [digit * 10.0**power for power in range(low, high + 1) for digit in digits]
        ticks = [value for value in ticks if levels[0] <= value <= levels[-1]]
        if len(ticks) > 1:
            return ticks[:: math.ceil(len(ticks) / FEW)]
    return [levels[0], levels[-1]]


def percent(axis: Axis, objective: Objective) -> None:
    """Label an axis of a metric in per cent, as the tables do."""
    if objective.is_rate:
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def places(values: Sequence[str]) -> tuple[list[float], list[str]]:
    """Return the positions of the values on an axis without numbers, and the names of the positions."""
    names = sorted(set(values))
    return [float(names.index(value)) for value in values], [name.replace("$", r"\$") for name in names]


def against(sweep: State, done: Sequence[Trial]) -> Figure | None:
    """Plot the first objective over each parameter."""
    from matplotlib.ticker import MaxNLocator, NullFormatter

    keys = [key for key in sweep.axes if len({trial.params[key] for trial in done}) > 1]
    if not keys:
        return None
    objective = sweep.objectives[0]
    columns = min(3, len(keys))
    rows = math.ceil(len(keys) / columns)
    plot, first = figure(2.9 * rows)
    first.remove()
    for place, key in enumerate(keys):
        axes = plot.add_subplot(rows, columns, place + 1)
        axes.spines[["top", "right"]].set_visible(False)
        texts = [trial.params[key] for trial in done]
        x = numbers(texts)
        if x is None:
            x, names = places(texts)
            axes.set_xticks(range(len(names)), names)
            axes.margins(x=0.25)
        else:
            logs = logarithmic(sweep, key, x)
            axes.set_xscale("log" if logs else "linear")
            if (ticks := marks(x, logs)) is None:
                axes.xaxis.set_major_locator(MaxNLocator(4))
            else:
                axes.set_xticks(ticks, [f"{value:.3g}" for value in ticks])
                axes.xaxis.set_minor_formatter(NullFormatter())
        if "." in objective.name:
            percent(axes.yaxis, objective)
        for backend in sorted({trial.params.get("backend", "") for trial in done}, reverse=True):  # torch first
            indices = [i for i, trial in enumerate(done) if trial.params.get("backend", "") == backend]
            y = [(done[i].means() or [math.nan])[0] for i in indices]
            axes.plot(
                [x[i] for i in indices], y, "o", color=COLOURS.get(backend, BLUE), alpha=0.75, label=backend or None
            )
        axes.set(xlabel=key, ylabel=objective.name if not place % columns else "")
        if not place and "backend" in sweep.axes:
            legend(axes, 2)
    return plot


def parallel(sweep: State, done: Sequence[Trial]) -> Figure | None:
    """Plot a line for each trial through its parameters to its objectives, each axis scaled to its own range."""
    from matplotlib.patheffects import withStroke

    if len(done) < 2 or len(sweep.axes) < 2:
        return None
    plot, axes = figure(3.8)
    columns: list[tuple[str, list[float], list[tuple[float, str]]]] = []
    for key in sweep.axes:
        texts = [trial.params[key] for trial in done]
        x = numbers(texts)
        if x is None:
            x, names = places(texts)
            ticks = [(float(i), name) for i, name in enumerate(names)]
        else:
            logs = [math.log(v) for v in x] if logarithmic(sweep, key, x) else x
            ticks = [(logs[x.index(v)], f"{v:.3g}") for v in (min(x), max(x))]
            x = logs
        columns.append((key, x, ticks))
    for place, objective in enumerate(sweep.objectives):
        y = [(trial.means() or [math.nan])[place] for trial in done]
        columns.append((objective.name, y, [(v, objective.shown(v)) for v in (min(y), max(y))]))
    for rank in reversed(range(len(done))):
        heights = [scaled(values)[rank] for _, values, _ in columns]
        depth = 1 - 0.85 * rank / max(1, len(done) - 1)
        axes.plot(range(len(columns)), heights, color=BLUE, alpha=depth, linewidth=2.2 if not rank else 1.3)
    for place, (_, values, ticks) in enumerate(columns):
        axes.axvline(place, color=PALE, linewidth=0.8, zorder=0)
        for value, text in ticks:
            height = scaled([*values, value])[-1]
            label = axes.annotate(text, (place, height), (4, 3), textcoords="offset points", fontsize=8, color=INK)
            label.set_path_effects([withStroke(linewidth=3, foreground="white")])  # lines begin here
    axes.set_xticks(range(len(columns)), [name for name, _, _ in columns])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(-0.2, len(columns) - 0.55)
    return plot


def scaled(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def important(sweep: State, done: Sequence[Trial]) -> Figure | None:
    """Plot a bar for each parameter's share of the variance."""
    values = [(trial.means() or [math.nan])[0] for trial in done]
    finite = [i for i, value in enumerate(values) if math.isfinite(value)]
    shares = search.importance(sweep.axes, [done[i].params for i in finite], [values[i] for i in finite])
    if not shares:
        return None
    plot, axes = figure(0.8 + 0.35 * len(shares))
    names = list(reversed(shares))
    axes.barh(names, [shares[name] for name in names], color=BLUE, height=0.6)
    axes.grid(False)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set(xlabel="share of the variance", xlim=(0, 1))
    return plot


def curves(sweep: State, folder: Path) -> Figure | None:
    """Plot the first objective, or the loss, over the steps of every run."""
    from matplotlib.ticker import MaxNLocator

    metric = sweep.objectives[0].name.partition(".")[2] or "loss"
    plot, axes = figure(4.2)
    ranked, count = sweep.ranked(), 0
    for rank, trial in enumerate(ranked):
        for job in trial.jobs:
            rows = [r for r in state.rows(folder / job.name) if r["split"] == "validation" and metric in r]
            if not rows:
                continue
            count += 1
            colour = COLOURS.get(trial.params.get("backend", ""), BLUE)
            best = not rank and trial.state == "done"
            label = f"best: trial {trial.number}" if best and job is trial.jobs[0] else None
            axes.plot(
                [row["step"] for row in rows],
                [row[metric] for row in rows],
                linestyle="--" if job.state == "pruned" else "-",
                marker="." if len(rows) < 3 else None,
                color=INK if best else colour,
                linewidth=2.2 if best else 1.1,
                alpha=1.0 if best else 0.45,
                zorder=3 if best else 2,
                label=label,
            )
    if not count:
        return None
    if "backend" in sweep.axes:
        for backend, colour in COLOURS.items():
            axes.plot([], [], color=colour, label=backend)
    axes.set(xlabel="optimizer step", ylabel=f"validation {metric}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric != "loss":
        percent(axes.yaxis, sweep.objectives[0])
    legend(axes, 4)
    return plot
