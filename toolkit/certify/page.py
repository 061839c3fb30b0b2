"""Output of a certificate: a table on the console, ``certificate.json``, and a page with plots."""

from __future__ import annotations

import html
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.certify import gates
from toolkit.certify.certificate import FLOORS, Certificate, relay
from toolkit.certify.compare import KINDS, Comparison, Gap
from toolkit.certify.worker import TRAININGS
from toolkit.errors import writing
from toolkit.reports import html as report
from toolkit.reports.html import BLUE, GREEN, INK, PALE, RED, VIOLET, figure, html_table, inline_image, legend
from toolkit.runs.checkpoint import write as write_file
from toolkit.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from toolkit.config.schema import Run

SMALLEST = 1e-17  # lower end of a logarithmic axis, where a gap of zero is drawn
Row = tuple[str, str, str, str, str]  # gate, largest, allowed, where, verdict


def write(
    certificate: Certificate,
    run: Run,
    config: Mapping[str, Any],
    about: Mapping[str, Any],
    seconds: float,
    folder: RunFolder,
) -> None:
    """Write both files into the run folder, and print the table and the verdict."""
    import json

    data = as_data(certificate, run, config, about, seconds)
    page = as_page(certificate, run, about, seconds)
    with writing(folder.path):
        write_file(folder.path / "certificate.json", json.dumps(finite(data), indent=1, allow_nan=False).encode())
        write_file(folder.path / "certificate.html", page.encode())
    folder.say(table(certificate, run))
    folder.say(
        f"the twins first differ at {certificate.first_place}" if certificate.first_place else "the twins are certified"
    )
    folder.say(f"{seconds:.0f} s, {folder.path / 'certificate.html'}")


# --- figures ---------------------------------------------------------------------------------------------------------


def rows(certificate: Certificate) -> list[Row]:
    """Return a row for each gate that was tried."""
    largest, semantics = certificate.semantics.largest(), certificate.places.get("semantics")
    gate_rows = [
        (
            "semantics: float64, everything at every step",
            number(largest.gap if largest else math.inf),
            number(gates.FLOAT64),
            semantics or (place(largest) if largest else "nothing was compared"),
            verdict(semantics),
        )
    ]
    gate_rows += list(float32_rows(certificate))
    gate_rows += list(relay_rows(certificate))
    if certificate.decoding:
        same = f"{certificate.decoding['identical']} of {certificate.decoding['examples']} equal"
        broken = certificate.places["decoding"]
        gate_rows.append((f"decoded text, {certificate.decoding['split']}", same, "all", broken or "", verdict(broken)))
    return gate_rows


def float32_rows(certificate: Certificate) -> Iterable[Row]:
    """Yield a row for each of the first steps and one for all later steps."""
    if certificate.places.get("float32") and not certificate.drift:
        yield "float32", "", "", certificate.places["float32"] or "", verdict(certificate.places["float32"])
    yield from drift_rows("float32: loss", certificate.drift, gates.FLOAT32_FIRST_STEPS, certificate.allowed_drift)


def relay_rows(certificate: Certificate) -> Iterable[Row]:
    """Yield the rows of the trainings that changed framework half-way."""
    for name, comparison in certificate.relays.items():
        largest = comparison.largest()
        where = str(comparison.first or "") or (place(largest) if largest else "")
        apart = number(largest.gap if largest else math.inf)
        yield relay(certificate, name), apart, number(gates.FLOAT64), where, verdict(comparison.first)
    for name, gaps in certificate.relay_drift.items():
        fixed, later = gates.FLOAT32_AFTER_A_CHANGE, certificate.allowed_relay_drift(name)
        yield from drift_rows(f"{relay(certificate, name)}: loss", gaps, fixed, later, certificate.half)


def drift_rows(
    what: str, gaps: Sequence[float], fixed: Mapping[int, float], limit: float, done: int = 0
) -> Iterable[Row]:
    """Yield a row for each of the first steps after ``done`` and one for all later steps."""
    for step, allowed in fixed.items():
        if step <= len(gaps):
            apart = gaps[step - 1]
            yield f"{what} at step {done + step}", number(apart), number(allowed), "", verdict(not apart <= allowed)
    if later := gaps[len(fixed) :]:
        apart, first = max(later), done + len(fixed) + 1
        allowed_later = f"{number(limit)} (floor x {gates.FLOOR_MULTIPLE:g})"
        where = f"step {first + later.index(apart)}"
        broken = not (math.isfinite(apart) and apart <= limit)
        yield f"{what} from step {first} on", number(apart), allowed_later, where, verdict(broken)


def verdict(broken: object) -> str:
    return "FAILED" if broken else "passed"


def place(gap: Gap) -> str:
    return f"step {gap.step}, {KINDS[gap.kind]} {gap.name}".strip()


def number(value: float) -> str:
    return "0" if not value else f"{value:.1e}" if math.isfinite(value) else "not finite"


def table(certificate: Certificate, run: Run) -> str:
    """Return the table for the console."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    gate_table = Table(title=f"{run.recipe}, {type(run.model).__name__}, {certificate.steps} steps")
    for heading in ("gate", "largest gap", "allowed", "where", ""):
        gate_table.add_column(heading, justify="right" if heading in ("largest gap", "allowed") else "left")
    for row in rows(certificate):
        gate_table.add_row(*(Text(cell) for cell in row))
    console = Console(width=120)
    with console.capture() as text:
        console.print(gate_table)
    return text.get().rstrip()


def as_data(
    certificate: Certificate, run: Run, config: Mapping[str, Any], about: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Return the content of ``certificate.json``."""
    return {
        "recipe": run.recipe,
        "model": type(run.model).__name__,
        "seed": run.seed,
        "steps": certificate.steps,
        "passed": certificate.passed,
        "first_place": certificate.first_place,
        "gates": {
            name: {"passed": place is None, "first_place": place} | figures
            for name, place in certificate.places.items()
            for figures in [gate_figures(certificate, name)]
        },
        "float64": comparison_data(certificate.semantics),
        "float32": {"first_step": [vars(gap) for gap in certificate.narrow.first_step]},
        "relays": {
            relay(certificate, name): comparison_data(comparison) for name, comparison in certificate.relays.items()
        },
        "curves": {
            "learning_rate": certificate.rates,
            "loss": certificate.curves,
            "drift": certificate.drift,
            "floor": certificate.floor,
            "relay_drift": certificate.relay_drift,
            "relay_floor": certificate.relay_floor,
        },
        "decoding": certificate.decoding,
        "seconds": seconds,
        "environment": dict(about),
        "config": dict(config),
    }


def gate_figures(certificate: Certificate, name: str) -> dict[str, Any]:
    if name == "semantics":
        largest = certificate.semantics.largest()
        return {"allowed": gates.FLOAT64, "largest": vars(largest) if largest else None}
    if name == "float32":
        return {
            "allowed": {str(k): v for k, v in gates.FLOAT32_FIRST_STEPS.items()} | {"later": certificate.allowed_drift},
            "first_steps": certificate.drift[: len(gates.FLOAT32_FIRST_STEPS)],
            "largest": max(certificate.drift, default=None),
            "floor": {floor(name): max(values, default=None) for name, values in certificate.floor.items()},
        }
    if name == "relay":
        drifts = {
            relay(certificate, name): {
                "first": apart[0],
                "largest": max(apart),
                "floor": max(certificate.relay_floor[name], default=None),
                "allowed": certificate.allowed_relay_drift(name),
            }
            for name, apart in certificate.relay_drift.items()
        }
        gaps = {relay(certificate, name): largest for name, c in certificate.relays.items() if (largest := c.largest())}
        return {
            "changed_after_step": certificate.half,
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


def as_page(certificate: Certificate, run: Run, about: Mapping[str, Any], seconds: float) -> str:
    """Return the content of ``certificate.html``, a single file with its plots."""
    title = f"{run.recipe}: {type(run.model).__name__}"
    passed = '<span class="yes">certified</span>' if certificate.passed else '<span class="no">not certified</span>'
    parts = [
        f"<h1>{html.escape(title)} &mdash; {passed}</h1>",
        f'<p class="note">PyTorch and TensorFlow, {certificate.steps} optimizer steps from the same weights on the '
        f"same batches, seed {run.seed}; {seconds:.0f} s.</p>",
    ]
    if certificate.first_place:
        parts.append(f'<p>The twins first differ at <b class="no">{html.escape(certificate.first_place)}</b>.</p>')
    parts += [
        "<h2>Gates</h2>",
        html_table(("gate", "largest gap", "allowed", "where", "verdict"), rows(certificate), (1, 2)),
    ]
    parts += ["<h2>Loss</h2>", inline_image(loss_plot(certificate))]
    if certificate.drift:
        parts += [
            "<h2>Float32: drift beside the frameworks' own floor</h2>",
            "<p>How far the float32 losses are apart, relative, at each step. The floor is how far each framework is "
            "from itself: weights moved by a rounding, and for torch one thread and two, float32 and float64. Training "
            "magnifies rounding; the twins may not part faster than a framework parts from itself. Trainings that "
            "change framework half-way are compared with the one whose checkpoint they resume; their floor includes "
            "the same change from moved weights.</p>",
            inline_image(drift_plot(certificate)),
        ]
    parts += [
        "<h2>Float64: everything, step by step</h2>",
        "<p>The largest relative gap of each kind. A difference in meaning stands far above the rounding of float64."
        "</p>",
        inline_image(kinds_plot(certificate)),
        "<h2>Step 1: each intermediate and each gradient</h2>",
        "<p>In the order of computation. Gaps of float32 are shown, not gated (a ReLU within rounding of zero may "
        "open in one twin only).</p>",
        inline_image(first_plot(certificate)),
        first_table(certificate),
    ]
    if certificate.decoding:
        parts += ["<h2>Decoding</h2>", decoding(certificate)]
    parts += ["<h2>Environment</h2>", html_table(("", ""), facts(about), ())]
    return report.page(title, parts)


def first_table(certificate: Certificate) -> str:
    """Return a table of every gap of step 1 in both precisions."""
    narrow = {(gap.kind, gap.name): number(gap.gap) for gap in certificate.narrow.first_step}
    cells = [
        (f"{KINDS[gap.kind]} {gap.name}", number(gap.gap), narrow.get((gap.kind, gap.name), ""))
        for gap in certificate.semantics.first_step
    ]
    left_out = ", ".join(certificate.semantics.unjudged)
    note = f"<p>Not compared, because the true gradient is zero: {html.escape(left_out)}.</p>" if left_out else ""
    figures = html_table(("", "float64", "float32"), cells, (1, 2))
    return f"{note}<details><summary>all figures</summary>{figures}</details>"


def decoding(certificate: Certificate) -> str:
    counts = certificate.decoding
    return (
        f"<p>{counts['identical']} of {counts['examples']} texts of the {counts['split']} split are identical; both "
        f"frameworks decoded the checkpoint of step {certificate.steps} of torch's float32 training. There are "
        f"{counts['different_texts']} different texts; {counts['empty']} examples have an empty text. Scores differ by "
        f"at most {counts['score_gap']:.1e}.</p>"
    )


def facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    return [
        ("command", shlex.join(about["command"])),
        ("commit", str(about["commit"] or "none")),
        ("processor", f"{about['cpu']}, {about['cores']} cores; no GPU is used"),
        ("system", f"{about['platform']}, Python {about['python']}"),
        ("packages", packages),
    ]


# --- plots -----------------------------------------------------------------------------------------------------------


def loss_plot(certificate: Certificate) -> Figure:
    plot, axes = figure(3.4)
    styles = {
        "torch64": ("torch, float64", BLUE, "-", 4.0),
        "tf64": ("tf, float64", "#f6c667", "-", 1.6),
        "torch32": ("torch, float32", INK, "--", 1.0),
        "tf32": ("tf, float32", RED, ":", 1.4),
    }
    for name, (label, colour, dash, width) in styles.items():
        if curve := certificate.curves.get(name):
            axes.plot(range(1, len(curve) + 1), curve, dash, color=colour, linewidth=width, label=label)
    axes.set(xlabel="optimizer step", ylabel="loss")
    legend(axes, 4)
    return plot


def logarithmic(axes: Axes, ylabel: str, lowest: float = SMALLEST) -> None:
    axes.set_yscale("log")
    axes.set_ylim(bottom=lowest)
    axes.set(ylabel=ylabel)


def visible(values: Iterable[float], lowest: float) -> list[float]:
    """Prepare values for a logarithmic axis: zero becomes ``lowest``, and a value that is not finite is not drawn."""
    return [max(v, lowest) if math.isfinite(v) else math.nan for v in values]


def drift_plot(certificate: Certificate) -> Figure:
    plot, axes = figure(4.2)
    lowest = 1e-9
    colours = {"threads": PALE, "torch64": BLUE}
    for name, values in certificate.floor.items():
        steps, dash = range(1, len(values) + 1), "-" if TRAININGS[name].backend == "torch" else "--"
        colour, label = colours.get(name, GREEN), f"floor: {floor(name)}"
        axes.plot(steps, visible(values, lowest), dash, color=colour, linewidth=1.6, label=label)
    steps = range(1, len(certificate.drift) + 1)
    axes.plot(steps, visible(certificate.drift, lowest), color=RED, linewidth=1.6, label="torch and tf")
    for (name, apart), dash in zip(certificate.relay_drift.items(), ("--", ":"), strict=False):
        later = range(certificate.half + 1, certificate.half + 1 + len(apart))
        label = relay(certificate, name).partition(", ")[2]
        axes.plot(later, visible(apart, lowest), color=VIOLET, linestyle=dash, linewidth=1.6, label=label)
    limits = [gates.FLOAT32_FIRST_STEPS.get(step, certificate.allowed_drift) for step in steps]
    axes.step(steps, limits, where="mid", color=INK, linestyle="--", linewidth=1, label="allowed")
    logarithmic(axes, "relative difference of the losses", lowest)
    axes.set(xlabel="optimizer step")
    legend(axes, 3)
    return plot


def kinds_plot(certificate: Certificate) -> Figure:
    from matplotlib import colormaps

    plot, axes = figure(4.2)
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (kind, gaps) in enumerate(certificate.semantics.worst.items()):
        steps, values = [gap.step for gap in gaps], visible((gap.gap for gap in gaps), SMALLEST)
        single = len(set(steps)) == 1
        axes.plot(steps, values, "o" if single else "-", color=colours[number % 10], linewidth=1.6, label=KINDS[kind])
    axes.axhline(gates.FLOAT64, color=INK, linestyle="--", linewidth=1, label="allowed")
    logarithmic(axes, "largest relative gap")
    axes.set(xlabel="optimizer step")
    legend(axes, 5)
    return plot


def first_plot(certificate: Certificate) -> Figure:
    plot, axes = figure(4.2)
    order = {(gap.kind, gap.name): place for place, gap in enumerate(certificate.semantics.first_step)}
    for comparison, colour, label in ((certificate.narrow, RED, "float32"), (certificate.semantics, BLUE, "float64")):
        for kind, mark in (("intermediate", "o"), ("loss", "*"), ("gradient", "^")):
            gaps = [gap for gap in comparison.first_step if gap.kind == kind]
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
    legend(axes, 4)
    return plot
