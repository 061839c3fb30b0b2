"""The evaluation of a split: decoded rows and their metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.columns.column import columns_of
from toolkit.data.exchange import gather
from toolkit.data.split import Data
from toolkit.tasks.spec import Row
from toolkit.training.engine import Engine
from toolkit.training.split import naming_examples

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split, and a row for each of its examples in the split's order."""

    metrics: dict[str, float]
    rows: list[Row]


def evaluate(
    run: Run, engine: Engine, data: Data, target: Any, quick: bool = False, show_progress: bool = True
) -> Evaluation:
    """Answer a whole split (see :func:`answer_split`) and measure the answers.

    An answer that is not in the form of the references, such as one with capitals where these were normalised, is
    brought to it; the row keeps the original as ``raw``.
    """
    comparable = columns_of(run).target.comparable
    rows = []
    for row in answer_split(run, engine, data, target, quick, show_progress):
        raw, hypothesis = row["hypothesis"], comparable(row["hypothesis"])
        row["reference"] = comparable(row["reference"])  # a step may change what it changed once more
        rows.append(row if hypothesis == raw else row | {"hypothesis": hypothesis, "raw": raw})
    loss = float(np.mean([row["loss"] for row in rows]))
    return Evaluation({"loss": loss} | run.task.measure(rows, data.split.target), rows)


def answer_split(
    run: Run, engine: Engine, data: Data, target: Any, quick: bool = False, show_progress: bool = True
) -> list[Row]:
    """Answer a split, with the averaged weights if the run keeps any.

    Args:
        run: the run's specs.
        engine: holds the model.
        data: the split.
        target: learned by the target column: tokenizer or classes.
        quick: between epochs, where a task may search with less effort.
        show_progress: show a progress bar on a terminal.

    Returns:
        a row for each example, in the split's order: id, reference if it is known, hypothesis, score, and what
        the task adds.
    """
    from rich.console import Console
    from rich.progress import track

    hidden = not (show_progress and Console().is_terminal)
    planned = data.plan.in_order()
    if not engine.sharded:  # each process decodes its share of the batches; sharded weights need all processes for each
        planned = planned[engine.rank :: engine.ranks]
    batches = engine.batches(data.collator, planned, 0)
    rows: list[tuple[int, Row]] = []
    with naming_examples(data.split), engine.with_averages():
        for batch in track(batches, "evaluate", len(planned), transient=True, disable=hidden):
            rows += answer_batch(run, engine, batch, target, data.split.target is not None, quick)
    # with sharded weights every process has all rows: those of rank 0 count, so that rounding cannot divide the ranks
    answers = dict(gather(engine, [] if engine.sharded and engine.rank else rows))
    split = data.split
    references: list[Row] = [{}] * len(split)
    if split.target is not None:
        references = [{"reference": text} for text in split.references]
    return [{"id": split.ids[i]} | references[i] | answers[i] for i in range(len(split))]


def answer_batch(
    run: Run, engine: Engine, batch: Any, target: Any, labelled: bool, quick: bool
) -> list[tuple[int, Row]]:
    """Return position and answer of each example of a batch.

    Args:
        run: the run's specs.
        engine: holds the model.
        batch: of the engine's loader.
        target: learned by the target column.
        labelled: the batch has targets; then the answers have the task's figures too, such as the loss.
        quick: see :func:`answer_split`.
    """
    task = run.task
    figures = engine.evaluate(batch) if labelled else {}
    if task.autoregressive:
        search = task.search(run, batch, quick)
        outputs = search.run(engine.stepper(batch, search.rows))
    else:
        outputs = figures if labelled else engine.predict(batch)
    rows = task.decode(outputs, target)
    for name in task.measured if labelled else ():
        for row, value in zip(rows, figures[name].tolist(), strict=True):
            row[name] = value
    return list(zip(np.asarray(batch["example"]).tolist(), rows, strict=True))
