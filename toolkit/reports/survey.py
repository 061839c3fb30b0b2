"""Survey of a run's data, from its files to its batches, without a framework."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from toolkit.config.schema import Run
from toolkit.data import pipeline
from toolkit.data.columns.column import Columns, columns_of
from toolkit.data.description import SPREAD, Description, Histogram, spread
from toolkit.data.lanes import Reader
from toolkit.data.problems import Report
from toolkit.data.split import Corpus, Data, Learned, Split, batched, encoded
from toolkit.errors import DataError

T = TypeVar("T")
EXTREMES = 3  # pairs shown at each end of the ratio of their sizes


@dataclass(frozen=True)
class Part:
    """The survey of one split.

    Args:
        split: its examples, encoded, those that the model cannot use included.
        input, target: descriptions of its columns.
        facts: text by label of what belongs to neither column.
        repeats: text by label of what the split has twice, or train has too.
    """

    split: Split
    input: Description
    target: Description
    facts: dict[str, str]
    repeats: dict[str, str]

    def ratio(self) -> Histogram | None:
        """Return the size of each target for one unit of its input; None if the columns do not both have a size."""
        source, target = self.input.sizes, self.target.sizes
        if source is None or target is None:
            return None
        sizes = target.values / np.maximum(source.values, 1e-9)
        return Histogram("ratio of lengths", f"{target.unit} / {source.unit}", sizes)

    def extremes(self) -> list[int]:
        """Return the positions of the examples with the smallest and the largest ratios, in ascending order of them."""
        ratio = self.ratio()
        order = [] if ratio is None else np.argsort(ratio.values, kind="stable").tolist()
        return order if len(order) <= 2 * EXTREMES else order[:EXTREMES] + order[-EXTREMES:]

    def shown(self, count: int) -> list[int]:
        """Return the positions of ``count`` examples, from the smallest input to the largest if it has a size."""
        sizes, length = self.input.sizes, len(self.split)
        order = np.arange(length) if sizes is None else np.argsort(sizes.values, kind="stable")
        return order[np.linspace(0, length - 1, min(count, length)).round().astype(int)].tolist()


@dataclass(frozen=True)
class Survey:
    """The survey of a run's data.

    Args:
        run: its specs.
        columns: of the run.
        parts: a survey of each split that has examples.
        report: the examples that are left out, and notes on those that are kept.
        refusal: why the run would be refused; None if it would train.
    """

    run: Run
    columns: Columns
    parts: Sequence[Part]
    report: Report
    refusal: DataError | None

    def table(self) -> list[tuple[str, list[str]]]:
        """Return a row for each fact: its label, and its text for each part."""
        names = [column.name for column in self.columns]
        facts = [
            part.facts | _named(names[0], part.input) | _named(names[1], part.target) | _ratio(part) | part.repeats
            for part in self.parts
        ]
        labels = dict.fromkeys(label for one in facts for label in one)
        return [(label, [one.get(label, "") for one in facts]) for label in labels]


def _named(column: str, description: Description) -> dict[str, str]:
    return {f"{column}: {label}": text for label, text in description.facts}


def _ratio(part: Part) -> dict[str, str]:
    ratio = part.ratio()
    return {} if ratio is None else {f"{ratio.unit}, {SPREAD}": spread(ratio.values, 1)}


def survey(run: Run) -> Survey:
    """Read, check and describe the data of a run. Bad examples are left out, even if they are a reason to refuse it.

    Raises:
        DataError: there are problems that leaving out examples does not mend.
    """
    columns = columns_of(run)
    corpus, refusal = _leniently(run, lambda run: pipeline.prepare(run.dataset, columns))
    reader = Reader(run, columns) if run.dataset.streaming else None
    if reader:
        (sample, dropped), unsound = _leniently(run, lambda run: reader.judged_sample(run.dataset.on_bad))
        corpus = replace(corpus, splits={**corpus.splits, "train": sample}, report=corpus.report + dropped)
        refusal = refusal or unsound
    with tempfile.TemporaryDirectory() as folder:
        pipeline.learn(columns, corpus.splits["train"], Path(folder))
        learned = pipeline.load(columns, Path(folder))
    corpus = replace(corpus, splits={name: encoded(columns, s, learned) for name, s in corpus.splits.items()})
    used, unfit = _usable(run, columns, corpus, learned)
    data = {} if used is None else {n: batched(run, columns, s, learned, False) for n, s in used.splits.items() if s}
    parts = [
        _part(run, columns, corpus, split, learned, data.get(name))
        for name, split in corpus.splits.items()
        if len(split)
    ]
    return Survey(run, columns, parts, (used or corpus).report, refusal or unfit)


def _leniently(run: Run, work: Callable[[Run], T]) -> tuple[T, DataError | None]:
    """Call ``work``; if it refuses the data, call it again with bad examples dropped.

    Returns:
        its result, and the refusal.

    Raises:
        DataError: the first refusal, if dropping does not help.
    """
    try:
        return work(run), None
    except DataError as error:
        try:
            return work(replace(run, dataset=replace(run.dataset, on_bad="drop"))), error
        except DataError:
            raise error from None


def _usable(run: Run, columns: Columns, corpus: Corpus, learned: Learned) -> tuple[Corpus | None, DataError | None]:
    """Return the examples that the model can use, None if they are not known; and why the run would be refused."""
    try:
        used, refusal = _leniently(run, lambda run: pipeline.usable(run, columns, corpus, learned))
    except DataError as error:
        return None, error
    try:
        pipeline.require_validation(used)
    except DataError as error:
        return used, refusal or error
    return used, refusal


def _part(run: Run, columns: Columns, corpus: Corpus, split: Split, learned: Learned, data: Data | None) -> Part:
    streamed = split.name == "train" and run.dataset.streaming
    facts = {"examples": f"{len(split):,}" + (" (sample of the stream)" if streamed else "")}
    if data is not None:
        padding = 1 - (data.efficiency() or 1)
        facts["left out for this model"] = f"{len(split) - len(data.split):,}"
        if not streamed:
            facts |= {"batches": f"{len(data.plan):,}", "padding of the batches": f"{100 * padding:.1f} %"}
    if split.name == "train" and data is not None and not streamed:
        facts["optimizer steps of the run"] = f"{data.steps(run.trainer):,}"
    input, target = (
        column.describe(values, state)
        for column, values, state in (
            (columns.input, split.input, learned.input),
            (columns.target, split.target, learned.target),
        )
    )
    return Part(split, input, target, facts, _repeats(columns, corpus, split))


def _repeats(columns: Columns, corpus: Corpus, split: Split) -> dict[str, str]:
    """Count the contents of a split that it has already, and those that train has too."""
    facts: dict[str, str] = {}
    train = {} if split.name == "train" else _keys(columns, corpus.splits["train"])
    for name, keys in _keys(columns, split).items():
        facts[f"{name}: repeated in the split"] = f"{len(keys) - len(set(keys)):,}"
        known = set(train.get(name, ()))
        facts[f"{name}: in train too"] = f"{sum(key in known for key in keys):,}" if known else ""
    return facts


def _keys(columns: Columns, split: Split) -> dict[str, Sequence[Any]]:
    """Return what makes an example the same as another: its input, its target and both; not a class."""
    input, target = split.input.records, split.target.records
    keys: dict[str, Sequence[Any]] = {columns.input.name: input}
    if not columns.target.exclusive:
        keys |= {columns.target.name: target, "both": list(zip(input, target, strict=True))}
    return keys
