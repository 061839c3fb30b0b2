"""Page and terminal output of a survey of a run's data: ``check=true``."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from toolkit.config.source import defaults_of
from toolkit.config.spec import as_data
from toolkit.data.description import Counts, Description, Sample
from toolkit.data.problems import LISTED
from toolkit.reports import html as report
from toolkit.reports.html import BLUE, GREEN, VIOLET, figure, html_table, inline_image, legend
from toolkit.reports.survey import Part, Survey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from toolkit.config.schema import Run
    from toolkit.errors import DataError

COLOURS = {"train": BLUE, "validation": GREEN, "test": VIOLET}
BINS = 40  # of a histogram
RARE = 10  # of the least frequent things that are named
MOST = 60  # bars of the most frequent things
NAMED = 40  # things that train lacks that are named
LONGEST = 300  # characters of a text beside an example
STYLE = """<style>
.bars { columns: 18rem; column-gap: 2rem; } .bar { display: flex; gap: .5rem; break-inside: avoid; font-size: 13px; }
.bar b { width: 5rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: right; }
.bar b { font-weight: 400; } .bar i { flex: 1; }
.bar u { display: block; height: .8rem; margin-top: .25rem; background: #1f6fb2; }
.bar span { width: 9rem; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.samples { display: flex; flex-wrap: wrap; gap: 1rem; } .samples figure { margin: 0; max-width: 18rem; }
.samples img { width: auto; min-width: 4rem; image-rendering: pixelated; } .samples audio { width: 18rem; }
figcaption { font-size: 13px; overflow-wrap: anywhere; }
</style>"""


# --- the terminal ----------------------------------------------------------------------------------------------------


def as_text(survey: Survey) -> str:
    """Return the description for the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for part in survey.parts:
        table.add_column(part.split.name, justify="right")
    for label, cells in survey.table():
        table.add_row(Text(label), *(Text(cell) for cell in cells))
    console = Console(width=160)
    with console.capture() as text:
        console.print(table)
    rows = (line.rstrip() for line in text.get().rstrip().splitlines())
    return "\n".join([headline(survey.run), "", *rows, "", *_remarks(survey)])


def headline(run: Run) -> str:
    """Name the recipe, the dataset and the fields that differ from its defaults."""
    kind, data = type(run.dataset), as_data(run.dataset)
    fields = [f"{name}={_value(value)}" for name, value in data.items() if value != defaults_of(kind)[name]]
    return " ".join([f"{run.recipe}: {kind.__name__}", *fields])


def _value(value: object) -> str:
    """Return a field's value as on the command line."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _remarks(survey: Survey) -> Iterator[str]:
    """Yield lines about the contents, and about the examples that are left out."""
    for name, title, counts in _counted(survey):
        yield f"{name}: rarest {title} of train: {_pairs(rarest(counts))}"
        if lacking := missing(counts):
            yield f"{name}: {title} that train lacks: {_pairs(lacking)}"
    yield from survey.report.notes
    if survey.report.dropped:
        yield "left out: " + ", ".join(f"{n} {kind}" for kind, n in survey.report.dropped.items())
        yield from (f"    {line}" for line in survey.report.lines[:LISTED])
        if len(survey.report.lines) > LISTED:
            yield f"    ... and {len(survey.report.lines) - LISTED} more, which the page lists"


def _pairs(counts: Mapping[str, int]) -> str:
    more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    return ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:NAMED]) + more


# --- counts ----------------------------------------------------------------------------------------------------------


def _counted(survey: Survey) -> Iterator[tuple[str, str, dict[str, Mapping[str, int]]]]:
    """Yield the name of a column, the title of its counts, and the counts by split."""
    for column, descriptions in zip(survey.columns, _descriptions(survey), strict=True):
        titles = dict.fromkeys(counts.title for one in descriptions.values() for counts in one.counts)
        for title in titles:
            yield column.name, title, {split: _of(title, one.counts) for split, one in descriptions.items()}


def _descriptions(survey: Survey) -> tuple[dict[str, Description], dict[str, Description]]:
    """Return the descriptions of the input and of the target by split."""
    parts = {part.split.name: part for part in survey.parts}
    return {name: part.input for name, part in parts.items()}, {name: part.target for name, part in parts.items()}


def _of(title: str, counts: Sequence[Counts]) -> Mapping[str, int]:
    return next((one.counts for one in counts if one.title == title), {})


def rarest(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the least frequent things of train, the rarest first."""
    train = counts.get("train", {})
    return dict(sorted(train.items(), key=lambda item: item[1])[:RARE])


def missing(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the things that train lacks, with their number in the other splits together."""
    totals: dict[str, int] = {}
    for split, numbers in counts.items():
        for name, count in numbers.items():
            if split != "train" and name not in counts.get("train", {}):
                totals[name] = totals.get(name, 0) + count
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


# --- the page --------------------------------------------------------------------------------------------------------


def as_page(survey: Survey) -> str:
    """Return the page, a single file with its plots, recordings and images."""
    run = survey.run
    rows = ([label, *cells] for label, cells in survey.table())
    parts = [
        STYLE,
        _title(run, survey.refusal),
        html_table(("", *(part.split.name for part in survey.parts)), rows, range(1, len(survey.parts) + 1)),
    ]
    if run.dataset.streaming:
        parts.append(f'<p class="note">train: the first {run.dataset.sample:,} examples of the stream.</p>')
    for column, descriptions in zip(survey.columns, _descriptions(survey), strict=True):
        parts += _plots(column.name, descriptions)
    for name, title, counts in _counted(survey):
        parts += _bars(name, title, counts)
    parts += [*_pairs_of_sizes(survey), *_left_out(survey)]
    for part in survey.parts:
        parts += _samples(survey, part)
    return report.page(headline(run), parts)


def refused_page(run: Run, refusal: DataError) -> str:
    """Return the page of data that cannot be described."""
    return report.page(headline(run), [STYLE, _title(run, refusal)])


def _title(run: Run, refusal: DataError | None) -> str:
    verdict = '<span class="yes">usable</span>' if refusal is None else '<span class="no">refused</span>'
    title = f'<h1>Data &mdash; {verdict}</h1><p class="note">{html.escape(headline(run))}</p>'
    if refusal is None:
        return title
    lines = "\n".join([refusal.headline, *refusal.problems] if refusal.headline else refusal.problems)
    return f"{title}<h2>Problems</h2><pre>{html.escape(lines)}</pre>"


def _plots(column: str, descriptions: Mapping[str, Description]) -> Iterator[str]:
    """Yield a histogram for each number that the descriptions of a column have."""
    groups: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for split, description in descriptions.items():
        for one in (*([description.sizes] if description.sizes else []), *description.histograms):
            groups.setdefault((one.title, one.unit), {})[split] = one.values
    for (title, unit), values in groups.items():
        yield f"<h2>{html.escape(f'{column}: {title}')}</h2>"
        yield inline_image(histogram(values, unit))


def histogram(values: Mapping[str, np.ndarray], unit: str) -> Figure:
    """Plot the distribution of a number in each split; the last bin collects a long tail.

    Args:
        values: split -> ``(values,)``.
        unit: of the number.
    """
    from matplotlib.ticker import MaxNLocator

    together = np.concatenate(list(values.values()))
    low, high, end = together.min(), together.max(), np.quantile(together, 0.995)
    top = end if high > 1.5 * end else high
    if np.issubdtype(together.dtype, np.integer):
        step = max(1, round((top - low) / BINS))
        edges = np.arange(low - 0.5, top + step + 0.5, step)
    else:
        edges = np.linspace(low, top if top > low else low + 1, BINS + 1)
    plot, axes = figure(2.6)
    for split, numbers in values.items():
        clipped, weights = np.minimum(numbers, edges[-1]), np.full(len(numbers), 100 / len(numbers))
        bins = edges.tolist()
        label, colour = f"{split} ({len(numbers):,})", COLOURS[split]
        axes.hist(clipped, bins, weights=weights, histtype="step", linewidth=1.5, color=colour, label=label)
    if np.issubdtype(together.dtype, np.integer):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    beyond = int((together > edges[-1]).sum())
    tail = f"; the last bin has {beyond:,} up to {high:,.4g}" if beyond else ""
    axes.set(xlabel=f"{unit}{tail}", ylabel="% of the split")
    legend(axes, len(values))
    return plot


def _bars(column: str, title: str, counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Yield bars of the most frequent things of train, and the names of the rarest and of those that it lacks."""
    train = counts.get("train", {})
    yield f"<h2>{html.escape(f'{column}: {len(train):,} {title} in train')}</h2>"
    largest = max(train.values(), default=1)
    names = list(train)[:MOST]
    bars = (_bar(name, [numbers.get(name, 0) for numbers in counts.values()], train[name] / largest) for name in names)
    yield f'<div class="bars">{"".join(bars)}</div>'
    which = f"; the {MOST} most frequent of {len(train):,}" if len(train) > MOST else ""
    yield f'<p class="note">Numbers in {html.escape(" / ".join(counts))}{which}.</p>'
    yield f"<p>Rarest: {html.escape(_pairs(rarest(counts)))}</p>"
    if lacking := missing(counts):
        yield f'<p><b class="no">Not in train:</b> {html.escape(_pairs(lacking))}</p>'


def _bar(name: str, counts: Sequence[int], width: float) -> str:
    label, numbers = html.escape(name), " / ".join(f"{count:,}" for count in counts)
    bar = f'<i><u style="width: {100 * width:.1f}%"></u></i>'
    return f'<div class="bar"><b title="{label}">{label}</b>{bar}<span>{numbers}</span></div>'


def _pairs_of_sizes(survey: Survey) -> Iterator[str]:
    """Yield the ratio of the sizes of input and target, and the examples at its ends."""
    ratios = {part.split.name: ratio for part in survey.parts if (ratio := part.ratio()) is not None}
    if not ratios:
        return
    first = next(iter(ratios.values()))
    yield f"<h2>{html.escape(f'Ratio of lengths: {first.unit}')}</h2>"
    yield inline_image(histogram({name: ratio.values for name, ratio in ratios.items()}, first.unit))
    rows = [
        (f"{ratios[part.split.name].values[i]:.2f}", part.split.origins[i], _caption(_both(survey, part, i)))
        for part in survey.parts
        for i in part.extremes()
    ]
    yield "<p>The smallest and the largest of each split, where a pair may not belong together:</p>"
    yield html_table((first.unit, "example", "content"), rows, (0,))


def _left_out(survey: Survey) -> Iterator[str]:
    if survey.report.dropped:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in survey.report.dropped.items())
        lines = html.escape("\n".join(survey.report.lines))
        yield f"<h2>Left out: {html.escape(kinds)}</h2><pre>{lines}</pre>"
    if survey.report.notes:
        yield f"<h2>Notes</h2><pre>{html.escape(chr(10).join(survey.report.notes))}</pre>"


def _samples(survey: Survey, part: Part) -> Iterator[str]:
    """Yield a few examples of a split to read, to see and to hear."""
    yield f"<h2>Examples: {html.escape(part.split.name)}</h2>"
    figures = (_figure(_both(survey, part, i), part.split.origins[i]) for i in part.shown(survey.columns.input.shown))
    yield f'<div class="samples">{"".join(figures)}</div>'


def _figure(samples: Sequence[Sample], origin: str) -> str:
    media = "".join(_media(sample) for sample in samples if sample.media)
    caption = f'{html.escape(_caption(samples))}<br><span class="note">{html.escape(origin)}</span>'
    return f"<figure>{media}<figcaption>{caption}</figcaption></figure>"


def _both(survey: Survey, part: Part, i: int) -> list[Sample]:
    columns, split = survey.columns, part.split
    return [columns.input.sample(split.input, i), columns.target.sample(split.target, i)]


def _caption(samples: Sequence[Sample]) -> str:
    texts = (sample.text if len(sample.text) <= LONGEST else f"{sample.text[:LONGEST]} ..." for sample in samples)
    return " \N{RIGHTWARDS ARROW} ".join(text for text in texts if text)


def _media(sample: Sample) -> str:
    data = f"data:{sample.mime};base64,{base64.b64encode(sample.media).decode()}"
    if sample.mime.startswith("audio/"):
        return f'<audio controls preload="metadata" src="{data}"></audio>'
    return f'<img alt="" src="{data}">'
