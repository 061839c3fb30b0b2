"""Output of a certificate: a table on the console, ``certificate.json``, and a page with plots."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.certify import gates
from toolkit.certify.certificate import FLOORS, Certificate, relay
from toolkit.certify.compare import KINDS, Comparison, Gap
from toolkit.certify.worker import TRAININGS
from toolkit.errors import writing
from toolkit.reports import html as report
from toolkit.reports.html import BLUE, GREEN, INK, PALE, RED, VIOLET, explain, figure, html_table, inline_image
from toolkit.runs.checkpoint import write as write_file
from toolkit.runs.folder import RunFolder

if TYPE_CHECKING:
    from toolkit.config.schema import Run

SMALLEST = 1e-17  # lower end of a logarithmic axis, where a gap of zero is drawn
Row = tuple[str, str, str, str, str]  # gate, largest, allowed, where, verdict


def write(
    made: Certificate, run: Run, config: Mapping[str, Any], about: Mapping[str, Any], seconds: float, folder: RunFolder
) -> None:
    """Write both files into the run folder, and print the table and the verdict."""
    import json

    data = as_data(made, run, config, about, seconds)
    page = as_page(made, run, about, seconds)
    with writing(folder.path):
        write_file(folder.path / "certificate.json", json.dumps(finite(data), indent=1, allow_nan=False).encode())
        write_file(folder.path / "certificate.html", page.encode())
    folder.say(table(made, run))
    folder.say(f"the twins part first at {made.first_place}" if made.first_place else "the twins are certified")
    folder.say(f"{seconds:.0f} s, {folder.path / 'certificate.html'}")


# --- figures ---------------------------------------------------------------------------------------------------------


def rows(made: Certificate) -> list[Row]:
    """Return a row for each gate that was tried."""
    largest, semantics = made.semantics.largest(), made.places.get("semantics")
    gate_rows = [
        (
            "semantics: float64, everything at every step",
            shown(largest.gap if largest else math.inf),
            shown(gates.FLOAT64),
            semantics or (place(largest) if largest else "nothing was compared"),
            verdict(semantics),
        )
    ]
    gate_rows += list(float32_rows(made))
    gate_rows += list(relay_rows(made))
    if made.decoding:
        same = f"{made.decoding['identical']} of {made.decoding['examples']} equal"
        broken = made.places["decoding"]
        gate_rows.append((f"decoded text, {made.decoding['split']}", same, "all", broken or "", verdict(broken)))
    return gate_rows


def float32_rows(made: Certificate) -> Iterable[Row]:
    """Yield a row for each of the first steps and one for all later steps."""
    if made.places.get("float32") and not made.drift:
        yield "float32", "", "", made.places["float32"] or "", verdict(made.places["float32"])
    yield from drift_rows("float32: loss", made.drift, gates.FLOAT32_FIRST_STEPS, made.allowed_drift)


def relay_rows(made: Certificate) -> Iterable[Row]:
    """Yield the rows of the trainings that changed framework half-way."""
    for name, comparison in made.relays.items():
        largest = comparison.largest()
        where = str(comparison.first or "") or (place(largest) if largest else "")
        apart = shown(largest.gap if largest else math.inf)
        yield relay(made, name), apart, shown(gates.FLOAT64), where, verdict(comparison.first)
    for name, gaps in made.relay_drift.items():
        fixed, later = gates.FLOAT32_AFTER_A_CHANGE, made.allowed_relay_drift(name)
        yield from drift_rows(f"{relay(made, name)}: loss", gaps, fixed, later, made.half)


def drift_rows(
    what: str, gaps: Sequence[float], fixed: Mapping[int, float], limit: float, done: int = 0
) -> Iterable[Row]:
    """Yield a row for each of the first steps after ``done`` and one for all later steps."""
    for step, allowed in fixed.items():
        if step <= len(gaps):
            apart = gaps[step - 1]
            yield f"{what} at step {done + step}", shown(apart), shown(allowed), "", verdict(not apart <= allowed)
    if later := gaps[len(fixed) :]:
        apart, first = max(later), done + len(fixed) + 1
        told = f"{shown(limit)} (floor x {gates.FLOOR_MULTIPLE:g})"
        where = f"step {first + later.index(apart)}"
        broken = not (math.isfinite(apart) and apart <= limit)
        yield f"{what} from step {first} on", shown(apart), told, where, verdict(broken)


def verdict(broken: object) -> str:
    return "FAILED" if broken else "passed"


def place(gap: Gap) -> str:
    return f"step {gap.step}, {KINDS[gap.kind]} {gap.name}".strip()


def shown(value: float) -> str:
    return "0" if not value else f"{value:.1e}" if math.isfinite(value) else "no number"


def table(made: Certificate, run: Run) -> str:
    """Return the table for the console."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    gate_table = Table(title=f"{run.recipe}, {type(run.model).__name__}, {made.steps} steps")
    for heading in ("gate", "largest gap", "allowed", "where", ""):
        gate_table.add_column(heading, justify="right" if heading in ("largest gap", "allowed") else "left")
    for row in rows(made):
        gate_table.add_row(*(Text(cell) for cell in row))
    console = Console(width=120)
    with console.capture() as text:
        console.print(gate_table)
    return text.get().rstrip()


def as_data(
    made: Certificate, run: Run, config: Mapping[str, Any], about: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Return the content of ``certificate.json``."""
    return {
        "recipe": run.recipe,
        "model": type(run.model).__name__,
        "seed": run.seed,
        "steps": made.steps,
        "passed": made.passed,
        "first_place": made.first_place,
        "gates": {
            name: {"passed": place is None, "first_place": place} | figures
            for name, place in made.places.items()
            for figures in [gate_figures(made, name)]
        },
        "float64": comparison_data(made.semantics),
        "float32": {"first_step": [vars(gap) for gap in made.narrow.first_step]},
        "relays": {relay(made, name): comparison_data(found) for name, found in made.relays.items()},
        "curves": {
            "learning_rate": made.rates,
            "loss": made.curves,
            "drift": made.drift,
            "floor": made.floor,
            "relay_drift": made.relay_drift,
            "relay_floor": made.relay_floor,
        },
        "decoding": made.decoding,
        "seconds": seconds,
        "environment": dict(about),
        "config": dict(config),
    }


def gate_figures(made: Certificate, name: str) -> dict[str, Any]:
    if name == "semantics":
        largest = made.semantics.largest()
        return {"allowed": gates.FLOAT64, "largest": vars(largest) if largest else None}
    if name == "float32":
        return {
            "allowed": {str(k): v for k, v in gates.FLOAT32_FIRST_STEPS.items()} | {"later": made.allowed_drift},
            "first_steps": made.drift[: len(gates.FLOAT32_FIRST_STEPS)],
            "largest": max(made.drift, default=None),
            "floor": {floor(name): max(values, default=None) for name, values in made.floor.items()},
        }
    if name == "relay":
        drifts = {
            relay(made, name): {
                "first": apart[0],
                "largest": max(apart),
                "floor": max(made.relay_floor[name], default=None),
                "allowed": made.allowed_relay_drift(name),
            }
            for name, apart in made.relay_drift.items()
        }
        gaps = {relay(made, name): largest for name, c in made.relays.items() if (largest := c.largest())}
        return {
            "changed_after_step": made.half,
            "allowed": gates.FLOAT64,
            "largest": {name: vars(gap) for name, gap in gaps.items()},
            "float32": drifts,
        }
    return {}


def floor(name: str) -> str:
    """Describe a training of the floor."""
    return f"{TRAININGS[name].backend}, {FLOORS[name]}"


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return the data of a float64 comparison: every gap of step 1, and the largest gap of each kind and step."""
    return {
        "first_step": [vars(gap) for gap in comparison.first_step],
        "largest": {kind: [vars(gap) for gap in gaps] for kind, gaps in comparison.worst.items()},
        "zero_gradient": comparison.unjudged,
    }


def finite(value: Any) -> Any:
    """Replace numbers that are not finite by null, because JSON has none."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- page ------------------------------------------------------------------------------------------------------------


def as_page(made: Certificate, run: Run, about: Mapping[str, Any], seconds: float) -> str:
    """Return the content of ``certificate.html``, a single file with its plots."""
    title = f"{run.recipe}: {type(run.model).__name__}"
    passed = '<span class="yes">certified</span>' if made.passed else '<span class="no">not certified</span>'
    parts = [
        f"<h1>{html.escape(title)} &mdash; {passed}</h1>",
        f'<p class="note">PyTorch and TensorFlow, {made.steps} optimizer steps from the same weights on the same '
        f"batches, seed {run.seed}; {seconds:.0f} s.</p>",
    ]
    if made.first_place:
        parts.append(f'<p>The twins part first at <b class="no">{html.escape(made.first_place)}</b>.</p>')
    parts += ["<h2>Gates</h2>", html_table(("gate", "largest gap", "allowed", "where", "verdict"), rows(made), (1, 2))]
    parts += ["<h2>Loss</h2>", inline_image(loss_plot(made))]
    if made.drift:
        parts += [
            "<h2>Float32: drift beside the frameworks' own floor</h2>",
            "<p>How far the float32 losses are apart, relative, at each step. The floor is how far each framework is "
            "from itself: weights moved by a rounding, and for torch one thread and two, float32 and float64. Training "
            "magnifies rounding; the twins may not part faster than a framework parts from itself. Trainings that "
            "change framework half-way are compared with the one whose checkpoint they resume; their floor includes "
            "the same change from moved weights.</p>",
            inline_image(drift_plot(made)),
        ]
    parts += [
        "<h2>Float64: everything, step by step</h2>",
        "<p>The largest relative gap of each kind. A difference in meaning stands far above the rounding of float64."
        "</p>",
        inline_image(kinds_plot(made)),
        "<h2>Step 1: each intermediate and each gradient</h2>",
        "<p>In the order of computation. Gaps of float32 are shown, not judged (a ReLU within rounding of zero may "
        "open in one twin only).</p>",
        inline_image(first_plot(made)),
        first_table(made),
    ]
    if made.decoding:
        parts += ["<h2>Decoding</h2>", decoded(made)]
    parts += ["<h2>Environment</h2>", html_table(("", ""), facts(about), ())]
    return report.page(title, parts)


def first_table(made: Certificate) -> str:
    """Return a table of every gap of step 1 in both precisions."""
    narrow = {(gap.kind, gap.name): shown(gap.gap) for gap in made.narrow.first_step}
    cells = [
        (f"{KINDS[gap.kind]} {gap.name}", shown(gap.gap), narrow.get((gap.kind, gap.name), ""))
        for gap in made.semantics.first_step
    ]
    left_out = ", ".join(made.semantics.unjudged)
    note = f"<p>Not judged, because the true gradient is zero: {html.escape(left_out)}.</p>" if left_out else ""
    figures = html_table(("", "float64", "float32"), cells, (1, 2))
    return f"{note}<details><summary>all figures</summary>{figures}</details>"


def decoded(made: Certificate) -> str:
    counts = made.decoding
    return (
        f"<p>{counts['identical']} of {counts['examples']} texts of the {counts['split']} split are identical; both "
        f"frameworks decoded the checkpoint of step {made.steps} of torch's float32 training. There are "
        f"{counts['different_texts']} different texts; {counts['empty']} examples have an empty one. Scores differ by "
        f"at most {counts['score_gap']:.1e}.</p>"
    )


def facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    return [
        ("command", " ".join(about["command"])),
        ("commit", str(about["commit"] or "none")),
        ("processor", f"{about['cpu']}, {about['cores']} cores; no GPU is used"),
        ("system", f"{about['platform']}, Python {about['python']}"),
        ("packages", packages),
    ]


# --- plots -----------------------------------------------------------------------------------------------------------


def loss_plot(made: Certificate) -> Any:
    plot, axes = figure(3.4)
    styles = {
        "torch64": ("torch, float64", BLUE, "-", 4.0),
        "tf64": ("tf, float64", "#f6c667", "-", 1.6),
        "torch32": ("torch, float32", INK, "--", 1.0),
        "tf32": ("tf, float32", RED, ":", 1.4),
    }
    for name, (label, colour, dash, width) in styles.items():
        if curve := made.curves.get(name):
            axes.plot(range(1, len(curve) + 1), curve, dash, color=colour, linewidth=width, label=label)
    axes.set(xlabel="optimizer step", ylabel="loss")
    explain(axes, 4)
    return plot


def logarithmic(axes: Any, ylabel: str, lowest: float = SMALLEST) -> None:
    axes.set_yscale("log")
    axes.set_ylim(bottom=lowest)
    axes.set(ylabel=ylabel)


def visible(values: Iterable[float], lowest: float) -> list[float]:
    """Prepare values for a logarithmic axis: zero becomes ``lowest``, and a value that is not finite is not drawn."""
    return [max(v, lowest) if math.isfinite(v) else math.nan for v in values]


def drift_plot(made: Certificate) -> Any:
    plot, axes = figure(4.2)
    lowest = 1e-9
    colours = {"threads": PALE, "torch64": BLUE}
    for name, values in made.floor.items():
        steps, dash = range(1, len(values) + 1), "-" if TRAININGS[name].backend == "torch" else "--"
        colour, label = colours.get(name, GREEN), f"floor: {floor(name)}"
        axes.plot(steps, visible(values, lowest), dash, color=colour, linewidth=1.6, label=label)
    steps = range(1, len(made.drift) + 1)
    axes.plot(steps, visible(made.drift, lowest), color=RED, linewidth=1.6, label="torch and tf")
    for (name, apart), dash in zip(made.relay_drift.items(), ("--", ":"), strict=False):
        later = range(made.half + 1, made.half + 1 + len(apart))
        label = relay(made, name).partition(", ")[2]
        axes.plot(later, visible(apart, lowest), color=VIOLET, linestyle=dash, linewidth=1.6, label=label)
    limits = [gates.FLOAT32_FIRST_STEPS.get(step, made.allowed_drift) for step in steps]
    axes.step(steps, limits, where="mid", color=INK, linestyle="--", linewidth=1, label="allowed")
    logarithmic(axes, "relative difference of the losses", lowest)
    axes.set(xlabel="optimizer step")
    explain(axes, 3)
    return plot


def kinds_plot(made: Certificate) -> Any:
    from matplotlib import colormaps

    plot, axes = figure(4.2)
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (kind, gaps) in enumerate(made.semantics.worst.items()):
        steps, values = [gap.step for gap in gaps], visible((gap.gap for gap in gaps), SMALLEST)
        single = len(set(steps)) == 1
        axes.plot(steps, values, "o" if single else "-", color=colours[number % 10], linewidth=1.6, label=KINDS[kind])
    axes.axhline(gates.FLOAT64, color=INK, linestyle="--", linewidth=1, label="allowed")
    logarithmic(axes, "largest relative gap")
    axes.set(xlabel="optimizer step")
    explain(axes, 5)
    return plot


def first_plot(made: Certificate) -> Any:
    plot, axes = figure(4.2)
    order = {(gap.kind, gap.name): place for place, gap in enumerate(made.semantics.first_step)}
    for found, colour, label in ((made.narrow, RED, "float32"), (made.semantics, BLUE, "float64")):
        for kind, mark in (("intermediate", "o"), ("loss", "*"), ("gradient", "^")):
            gaps = [gap for gap in found.first_step if gap.kind == kind]
            axes.plot(
                [order.get((gap.kind, gap.name), 0) for gap in gaps],
                visible((gap.gap for gap in gaps), SMALLEST),
                mark,
                color=colour,
                markersize=5,
                label=f"{KINDS[kind]}, {label}" if gaps else None,
            )
    axes.axhline(gates.FLOAT64, color=INK, linestyle="--", linewidth=1, label="allowed in float64")
    logarithmic(axes, "relative gap")
    axes.set(xlabel="in the order of computation")
    explain(axes, 4)
    return plot
