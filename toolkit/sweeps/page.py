"""Report of a sweep: a live table, ``sweep.csv``, and one page with tables and plots."""

from __future__ import annotations

import csv
import html
import io
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import writing
from toolkit.reports import html as report
from toolkit.reports.html import html_table, inline_image
from toolkit.runs import checkpoint
from toolkit.sweeps import state
from toolkit.sweeps.plots import COLOURS, against, curves, important, numbers, parallel
from toolkit.sweeps.state import Job, Objective, State, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

MARKS = {"waiting": "", "running": "...", "done": "done", "pruned": "pruned", "failed": "FAILED"}
SHOWN = 20  # rows of the live table
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
        """Print a line; on a terminal the table shows what it says."""
        if not self.live:
            print(line, flush=True)

    def once(self, line: str) -> None:
        if line not in self.said:
            self.said.add(line)
            self.console.print(line, highlight=False)

    def ended(self, trial: Trial, job: Job) -> None:
        outcome = f" {job.why}" if job.why else ""
        if (means := trial.means()) is not None:
            outcome = "".join(f"  {o.name} {o.shown(v)}" for o, v in zip(self.sweep.objectives, means, strict=True))
        self.say(f"run {job.name}: {job.state}{outcome}  ({job.seconds:.0f} s)")


def latest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Describe the progress of a job by its last rows."""
    if not rows:
        return "starting"
    text = f"epoch {rows[-1]['epoch']}, step {rows[-1]['step']}"
    validation = next((row for row in reversed(rows) if row["split"] == "validation"), None)
    return text + (f", validation loss {validation['loss']:.3f}" if validation and "loss" in validation else "")


def table(sweep: State, running: Mapping[str, str]) -> Table:
    """Return a table of the trials: those that run, those that failed, and the best of those that are done."""
    from rich.table import Table
    from rich.text import Text

    ranked = sweep.ranked()
    order = {"running": 0, "failed": 1, "done": 2, "pruned": 3, "waiting": 4}
    ordered = sorted(ranked, key=lambda trial: order[trial.state])
    done, failed = (sum(t.state in states for t in sweep.trials) for states in (("done", "pruned"), ("failed",)))
    title = f"{sweep.recipe}: {done} of {sweep.total} done" + (f", {failed} failed" if failed else "")
    trial_table = Table(title=title, title_justify="left")
    headings = ["run", *sweep.axes, *(objective.name for objective in sweep.objectives), ""]
    for heading in headings:
        trial_table.add_column(heading)
    for trial in ordered[:SHOWN]:
        where = next((running[job.name] for job in trial.jobs if job.name in running), "")
        values = [mean_and_interval(o, trial, i) for i, o in enumerate(sweep.objectives)]
        cells = [
            str(trial.number),
            *(short(trial.params[key]) for key in sweep.axes),
            *values,
            where or MARKS[trial.state],
        ]
        trial_table.add_row(*(Text(cell) for cell in cells))
    if len(ordered) > SHOWN:
        trial_table.caption = f"and {len(ordered) - SHOWN} more"
    return trial_table


def short(value: str) -> str:
    """Shorten a drawn number to four digits; ``sweep.csv`` has all of them."""
    return f"{float(value):.4g}" if len(value) > 8 and numbers([value]) else value


def mean_and_interval(objective: Objective, trial: Trial, place: int) -> str:
    means, widths = trial.means(), trial.intervals()
    if means is None:
        return ""
    return objective.shown(means[place]) + (f" ± {objective.shown(widths[place])}" if widths else "")


# --- files -----------------------------------------------------------------------------------------------------------


def write(sweep: State, folder: Path) -> None:
    """Write ``sweep.csv`` and ``sweep.html``, and say where they are."""
    results = {job.name: state.results(folder / job.name) for trial in sweep.trials for job in trial.jobs}
    with writing(folder):
        checkpoint.write(folder / "sweep.csv", as_csv(sweep, results, folder).encode())
        checkpoint.write(folder / "sweep.html", as_page(sweep, results, folder).encode())
    print(f"{folder / 'sweep.csv'}, {folder / 'sweep.html'}")


def as_csv(sweep: State, results: Mapping[str, Any], folder: Path) -> str:
    """Return a row for each run: its parameters, how it ended, every metric of every split, times, its folder."""
    rows = []
    for trial in sorted(sweep.trials, key=lambda trial: trial.number):
        for job in trial.jobs:
            row: dict[str, Any] = {"run": job.name, "state": job.state} | trial.params
            if job.seed is not None:
                row["seed"] = job.seed
            if values := results.get(job.name):
                row |= {
                    f"{split}.{name}": v for split, metrics in values["metrics"].items() for name, v in metrics.items()
                }
                row |= {name: values.get(name) for name in state.FIGURES}
            rows.append(row | {"seconds": job.seconds, "why": job.why, "folder": str(folder / job.name)})
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_page(sweep: State, results: Mapping[str, Any], folder: Path) -> str:
    """Return the content of ``sweep.html``."""
    count = {name: sum(trial.state == name for trial in sweep.trials) for name in MARKS}
    summary = ", ".join(f"{number} {name}" for name, number in count.items() if number)
    command = html.escape(shlex.join(["python", "-m", "toolkit.run", *sweep.command, "-m"]))
    objectives = ", ".join(f"{o.name} ({o.direction})" for o in sweep.objectives)
    parts = [
        f"<h1>{html.escape(sweep.recipe)}: {len(sweep.trials)} trials</h1>",
        f'<p class="note">{summary}; objectives: {html.escape(objectives)}.</p><pre>{command}</pre>',
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
    if "backend" in sweep.axes and (pairs := backends(sweep, done, results)):
        parts += ["<h2>PyTorch against TensorFlow</h2>", pairs]
    if sweep.failed:
        cells = [(job.name, str(job.code), job.why) for job in sweep.failed]
        parts += ["<h2>Failed</h2>", html_table(("run", "exit code", "why"), cells, (1,))]
    return report.page(f"{sweep.recipe}: sweep", [*parts, SORTED])


IMPORTANCE = (
    "How much of the variance of the first objective a parameter explains, by itself and with the others (fANOVA, "
    "Hutter et al. 2014, by Optuna). With few trials it is only a rough guide."
)


def section(heading: str, note: str, plot: Callable[[], Figure | None]) -> list[str]:
    """Return a heading and a plot; nothing if there is nothing to draw."""
    try:
        drawing = plot()
        image = None if drawing is None else inline_image(drawing)
    except Exception as error:  # a page without a plot is better than none
        return [f"<h2>{heading}</h2>", f'<p class="no">The plot could not be drawn: {html.escape(str(error))}</p>']
    return [f"<h2>{heading}</h2>", *([f'<p class="note">{note}</p>'] if note else []), image] if image else []


def trials(sweep: State) -> str:
    """Return the table of trials, the best first."""
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


def backends(sweep: State, done: Sequence[Trial], results: Mapping[str, Any]) -> str:
    """Return a table with a row for each choice of the other parameters that both backends have run."""
    others = [key for key in sweep.axes if key != "backend"]
    pairs: dict[tuple[str, ...], dict[str, Trial]] = {}
    for trial in done:
        pairs.setdefault(tuple(trial.params[key] for key in others), {})[trial.params["backend"]] = trial
    objective, cells = sweep.objectives[0], []
    for choice, both in pairs.items():
        if len(both) < 2:
            continue
        values = [mean_and_interval(objective, both[backend], 0) for backend in COLOURS]
        speeds = [speed(both[backend], results) for backend in COLOURS]
        ratio = f"{speeds[1] / speeds[0]:.2f}" if speeds[0] and speeds[1] else ""
        cells.append([*choice, *values, *(f"{value:.1f}" if value else "" for value in speeds), ratio])
    if not cells:
        return ""
    what = [f"{objective.name}, {backend}" for backend in COLOURS] + [f"examples/s, {backend}" for backend in COLOURS]
    return html_table([*others, *what, "tf / torch"], cells, range(len(others), len(others) + 5))


def speed(trial: Trial, results: Mapping[str, Any]) -> float:
    """Return the examples a second, the mean over the seeds."""
    values = [(results.get(job.name) or {}).get("examples_per_second") or 0.0 for job in trial.jobs]
    return sum(values) / len(values)
