"""Report of a sweep: a live table, ``sweep.csv``, and one page with tables and plots."""

from __future__ import annotations

import csv
import html
import io
import itertools
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import writing
from toolkit.reports import html as report
from toolkit.reports.html import BLUE, INK, PALE, RED, explain, figure, html_table, inline_image
from toolkit.runs import checkpoint
from toolkit.sweeps import search, state
from toolkit.sweeps.state import Job, Objective, State, Trial

MARKS = {"waiting": "", "running": "...", "done": "done", "pruned": "pruned", "failed": "FAILED"}
COLOURS = {"torch": RED, "tf": BLUE}
SHOWN = 20  # rows of the live table
FEW = 4  # marks below a narrow plot
SORTED = """<script>
document.querySelectorAll("th").forEach(th => th.addEventListener("click", () => {
  const body = th.closest("table"), place = th.cellIndex, up = th.dataset.up = th.dataset.up === "1" ? "" : "1";
  const value = row => { const text = row.cells[place].textContent, n = parseFloat(text); return isNaN(n) ? text : n; };
  [...body.rows].slice(1).sort((a, b) => (value(a) > value(b) ? 1 : -1) * (up ? 1 : -1)).forEach(r => body.append(r));
}));
</script><style>th { cursor: pointer; } td:first-child { white-space: nowrap; }</style>"""


# --- the terminal ----------------------------------------------------------------------------------------------------


class Display:
    """Live table on a terminal, one line per event elsewhere."""

    def __init__(self, sweep: State, folder: Path) -> None:
        from rich.console import Console
        from rich.live import Live

        self.sweep, self.folder, self.console = sweep, folder, Console()
        self.live = Live(console=self.console, refresh_per_second=2) if self.console.is_terminal else None
        self.said: set[str] = set()

    def __enter__(self) -> Display:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live:
            self.live.update(table(self.sweep, {}))
            self.live.__exit__(*error)
        else:
            self.console.print(table(self.sweep, {}))

    def show(self, running: Iterable[Any]) -> None:
        if self.live:
            self.live.update(table(self.sweep, {one.job.name: latest(one.rows) for one in running}))

    def say(self, line: str) -> None:
        """Do nothing: on a terminal the table shows it."""
        if not self.live:
            print(line, flush=True)

    def once(self, line: str) -> None:
        if line not in self.said:
            self.said.add(line)
            self.console.print(line, highlight=False)

    def ended(self, trial: Trial, job: Job) -> None:
        told = f" {job.why}" if job.why else ""
        if (means := trial.means()) is not None:
            told = "".join(f"  {o.name} {o.shown(v)}" for o, v in zip(self.sweep.objectives, means, strict=True))
        self.say(f"run {job.name}: {job.state}{told}  ({job.seconds:.0f} s)")


def latest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where a job stands."""
    if not rows:
        return "starts"
    told = f"epoch {rows[-1]['epoch']}, step {rows[-1]['step']}"
    measured = next((row for row in reversed(rows) if row["split"] == "validation"), None)
    return told + (f", validation loss {measured['loss']:.3f}" if measured and "loss" in measured else "")


def table(sweep: State, running: Mapping[str, str]) -> Any:
    """The trials: those that run, those that failed, and the best of those that are done."""
    from rich.table import Table
    from rich.text import Text

    ranked = sweep.ranked()
    order = {"running": 0, "failed": 1, "done": 2, "pruned": 3, "waiting": 4}
    ordered = sorted(ranked, key=lambda trial: order[trial.state])
    done = sum(trial.state in ("done", "pruned", "failed") for trial in sweep.trials)
    made = Table(title=f"{sweep.recipe}: {done} of {sweep.total} done", title_justify="left")
    headings = ["run", *sweep.axes, *(objective.name for objective in sweep.objectives), ""]
    for heading in headings:
        made.add_column(heading)
    for trial in ordered[:SHOWN]:
        where = next((running[job.name] for job in trial.jobs if job.name in running), "")
        values = [mean_and_interval(o, trial, i) for i, o in enumerate(sweep.objectives)]
        cells = [
            str(trial.number),
            *(short(trial.params[key]) for key in sweep.axes),
            *values,
            where or MARKS[trial.state],
        ]
        made.add_row(*(Text(cell) for cell in cells))
    if len(ordered) > SHOWN:
        made.caption = f"and {len(ordered) - SHOWN} more"
    return made


def short(value: str) -> str:
    """A drawn number with four digits; ``sweep.csv`` has all of them."""
    return f"{float(value):.4g}" if len(value) > 8 and numbers([value]) else value


def mean_and_interval(objective: Objective, trial: Trial, place: int) -> str:
    means, widths = trial.means(), trial.intervals()
    if means is None:
        return ""
    return objective.shown(means[place]) + (f" ± {objective.shown(widths[place])}" if widths else "")


# --- files -----------------------------------------------------------------------------------------------------------


def write(sweep: State, folder: Path) -> None:
    """Write ``sweep.csv`` and ``sweep.html``, and say where they are."""
    found = {job.name: state.results(folder / job.name) for trial in sweep.trials for job in trial.jobs}
    with writing(folder):
        checkpoint.write(folder / "sweep.csv", as_csv(sweep, found, folder).encode())
        checkpoint.write(folder / "sweep.html", as_page(sweep, found, folder).encode())
    print(f"{folder / 'sweep.csv'}, {folder / 'sweep.html'}")


def as_csv(sweep: State, found: Mapping[str, Any], folder: Path) -> str:
    """A row for each run: its parameters, how it ended, every metric of every split, times, its folder."""
    rows = []
    for trial in sorted(sweep.trials, key=lambda trial: trial.number):
        for job in trial.jobs:
            row: dict[str, Any] = {"run": job.name, "state": job.state} | trial.params
            if job.seed is not None:
                row["seed"] = job.seed
            if results := found.get(job.name):
                row |= {
                    f"{split}.{name}": v for split, values in results["metrics"].items() for name, v in values.items()
                }
                row |= {name: results.get(name) for name in state.FIGURES}
            rows.append(row | {"seconds": job.seconds, "why": job.why, "folder": str(folder / job.name)})
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_page(sweep: State, found: Mapping[str, Any], folder: Path) -> str:
    """The content of ``sweep.html``."""
    count = {name: sum(trial.state == name for trial in sweep.trials) for name in MARKS}
    told = ", ".join(f"{number} {name}" for name, number in count.items() if number)
    command = html.escape(shlex.join(["python", "-m", "toolkit.run", *sweep.command, "-m"]))
    objectives = ", ".join(f"{o.name} ({o.direction})" for o in sweep.objectives)
    parts = [
        f"<h1>{html.escape(sweep.recipe)}: {len(sweep.trials)} trials</h1>",
        f'<p class="note">{told}; sought: {html.escape(objectives)}.</p><pre>{command}</pre>',
        "<h2>Trials</h2>",
        trials(sweep),
    ]
    done = [trial for trial in sweep.ranked() if trial.state == "done"]
    for heading, note, plot in (
        ("Objective against each parameter", "", lambda: against(sweep, done)),
        ("Parallel coordinates", "A line for each trial; the darker, the better.", lambda: parallel(sweep, done)),
        ("Importance", IMPORTANCE, lambda: important(sweep, done)),
        (
            "Learning curves",
            "Validations of every run; dashed, or a point, where it was pruned.",
            lambda: curves(sweep, folder),
        ),
    ):
        parts += section(heading, note, plot)
    if "backend" in sweep.axes and (pairs := backends(sweep, done, found)):
        parts += ["<h2>PyTorch against TensorFlow</h2>", pairs]
    if sweep.failed:
        cells = [(job.name, str(job.code), job.why) for job in sweep.failed]
        parts += ["<h2>Failed</h2>", html_table(("run", "exit code", "why"), cells, (1,))]
    return report.page(f"{sweep.recipe}: sweep", [*parts, SORTED])


IMPORTANCE = (
    "How much of the variance of the first objective a parameter explains, by itself and with the others (fANOVA, "
    "Hutter et al. 2014, by Optuna). Of few trials it is a hint."
)


def section(heading: str, note: str, plot: Callable[[], Any]) -> list[str]:
    """A heading and a plot; nothing where there is nothing to be drawn."""
    try:
        made = plot()
        image = None if made is None else inline_image(made)
    except Exception as error:  # a page without a plot is better than none
        return [f"<h2>{heading}</h2>", f'<p class="no">It could not be drawn: {html.escape(str(error))}</p>']
    return [f"<h2>{heading}</h2>", *([f'<p class="note">{note}</p>'] if note else []), image] if image else []


def trials(sweep: State) -> str:
    """The table of trials, the best first."""
    cells = []
    for trial in sweep.ranked():
        values = [mean_and_interval(o, trial, i) for i, o in enumerate(sweep.objectives)]
        seconds = sum(job.seconds for job in trial.jobs)
        cells.append(
            [
                str(trial.number),
                *(short(trial.params[key]) for key in sweep.axes),
                *values,
                f"{seconds:.0f}",
                trial.state,
            ]
        )
    headings = ["trial", *sweep.axes, *(o.name for o in sweep.objectives), "seconds", "state"]
    first = 1 + len(sweep.axes)
    return html_table(headings, cells, range(first, first + len(sweep.objectives) + 1))


def backends(sweep: State, done: Sequence[Trial], found: Mapping[str, Any]) -> str:
    """A row for each choice of the other parameters that both backends have run."""
    others = [key for key in sweep.axes if key != "backend"]
    pairs: dict[tuple[str, ...], dict[str, Trial]] = {}
    for trial in done:
        pairs.setdefault(tuple(trial.params[key] for key in others), {})[trial.params["backend"]] = trial
    objective, cells = sweep.objectives[0], []
    for choice, both in pairs.items():
        if len(both) < 2:
            continue
        values = [mean_and_interval(objective, both[backend], 0) for backend in COLOURS]
        speeds = [speed(both[backend], found) for backend in COLOURS]
        ratio = f"{speeds[1] / speeds[0]:.2f}" if speeds[0] and speeds[1] else ""
        cells.append([*choice, *values, *(f"{value:.1f}" if value else "" for value in speeds), ratio])
    if not cells:
        return ""
    what = [f"{objective.name}, {backend}" for backend in COLOURS] + [f"examples/s, {backend}" for backend in COLOURS]
    return html_table([*others, *what, "tf / torch"], cells, range(len(others), len(others) + 5))


def speed(trial: Trial, found: Mapping[str, Any]) -> float:
    """Examples a second, the mean over the seeds."""
    values = [(found.get(job.name) or {}).get("examples_per_second") or 0.0 for job in trial.jobs]
    return sum(values) / len(values)


# --- plots -----------------------------------------------------------------------------------------------------------


def numbers(values: Sequence[str]) -> list[float] | None:
    """Values of an axis as numbers; None where one is none."""
    try:
        found = [float(value) for value in values]
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def logarithmic(sweep: State, key: str, values: Sequence[float]) -> bool:
    """Tell if an axis needs powers of ten: it was searched by its logarithm, or spans orders of magnitude."""
    sought = any(axis["key"] == key and axis["log"] for axis in sweep.identity.get("axes", ()))
    return min(values) > 0 and (sought or max(values) / min(values) >= 30)


def marks(values: Sequence[float], logs: bool) -> list[float] | None:
    """Choose the ticks of an axis: the values where they are few, short and apart; round ones on a logarithmic axis;
    None where matplotlib chooses well."""
    tried = sorted(set(values))
    heights = scaled([math.log(value) for value in tried] if logs else tried)
    apart = all(after - before >= 0.2 for before, after in itertools.pairwise(heights))
    if len(tried) <= FEW and apart and all(len(f"{value:g}") <= 6 for value in tried):
        return tried
    if not logs:
        return None
    low, high = (math.floor(math.log10(value)) for value in (tried[0], tried[-1]))
    for digits in ((1,), (1, 3), (1, 2, 5)):
        found = [digit * 10.0**power for power in range(low, high + 1) for digit in digits]
        found = [value for value in found if tried[0] <= value <= tried[-1]]
        if len(found) > 1:
            return found[:: math.ceil(len(found) / FEW)]
    return [tried[0], tried[-1]]


def percent(axis: Any, objective: Objective) -> None:
    """Let an axis of a metric say what the tables say."""
    if objective.shown(0.5).endswith("%"):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def places(values: Sequence[str]) -> tuple[list[float], list[str]]:
    """Where the values of an axis without numbers stand, and their names."""
    names = sorted(set(values))
    return [float(names.index(value)) for value in values], [name.replace("$", r"\$") for name in names]


def against(sweep: State, done: Sequence[Trial]) -> Any:
    """The first objective over each parameter."""
    from matplotlib.ticker import MaxNLocator, NullFormatter

    varied = [key for key in sweep.axes if len({trial.params[key] for trial in done}) > 1]
    if not varied:
        return None
    objective = sweep.objectives[0]
    columns = min(3, len(varied))
    rows = math.ceil(len(varied) / columns)
    plot, first = figure(2.9 * rows)
    first.remove()
    for place, key in enumerate(varied):
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
            if (found := marks(x, logs)) is None:
                axes.xaxis.set_major_locator(MaxNLocator(4))
            else:
                axes.set_xticks(found, [f"{value:.3g}" for value in found])
                axes.xaxis.set_minor_formatter(NullFormatter())
        if "." in objective.name:
            percent(axes.yaxis, objective)
        for backend in sorted({trial.params.get("backend", "") for trial in done}, reverse=True):  # torch first
            chosen = [i for i, trial in enumerate(done) if trial.params.get("backend", "") == backend]
            y = [(done[i].means() or [math.nan])[0] for i in chosen]
            axes.plot(
                [x[i] for i in chosen], y, "o", color=COLOURS.get(backend, BLUE), alpha=0.75, label=backend or None
            )
        axes.set(xlabel=key, ylabel=objective.name if not place % columns else "")
        if not place and "backend" in sweep.axes:
            explain(axes, 2)
    return plot


def parallel(sweep: State, done: Sequence[Trial]) -> Any:
    """A line for each trial through its parameters to its objectives, each axis scaled to its own range."""
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


def important(sweep: State, done: Sequence[Trial]) -> Any:
    """A bar for each parameter's share of the variance."""
    values = [(trial.means() or [math.nan])[0] for trial in done]
    finite = [i for i, value in enumerate(values) if math.isfinite(value)]
    found = search.importance(sweep.axes, [done[i].params for i in finite], [values[i] for i in finite])
    if not found:
        return None
    plot, axes = figure(0.8 + 0.35 * len(found))
    names = list(reversed(found))
    axes.barh(names, [found[name] for name in names], color=BLUE, height=0.6)
    axes.grid(False)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set(xlabel="share of the variance", xlim=(0, 1))
    return plot


def curves(sweep: State, folder: Path) -> Any:
    """Plot the first objective, or the loss, over the steps of every run."""
    from matplotlib.ticker import MaxNLocator

    metric = sweep.objectives[0].name.partition(".")[2] or "loss"
    plot, axes = figure(4.2)
    ranked, drawn = sweep.ranked(), 0
    for rank, trial in enumerate(ranked):
        for job in trial.jobs:
            rows = [r for r in state.rows(folder / job.name) if r["split"] == "validation" and metric in r]
            if not rows:
                continue
            drawn += 1
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
    if not drawn:
        return None
    if "backend" in sweep.axes:
        for backend, colour in COLOURS.items():
            axes.plot([], [], color=colour, label=backend)
    axes.set(xlabel="optimizer step", ylabel=f"validation {metric}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric != "loss":
        percent(axes.yaxis, sweep.objectives[0])
    explain(axes, 4)
    return plot
