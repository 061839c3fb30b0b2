"""The evaluation of a split: decoded rows, and the metrics of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.corpus import Data
from toolkit.data.exchange import gather
from toolkit.training.engine import Engine
from toolkit.training.split import naming_examples

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split, and a row for each of its examples in the split's order."""

    metrics: dict[str, float]
    rows: list[dict[str, Any]]


def evaluate(run: Run, engine: Engine, data: Data, tokenizer: Any, final: bool = True) -> Evaluation:
    """Decode a whole split (see :func:`decode`) and measure it."""
    rows = decode(run, engine, data, tokenizer, final)
    return Evaluation({"loss": float(np.mean([r["loss"] for r in rows]))} | run.task.measure(rows), rows)


def decode(run: Run, engine: Engine, data: Data, tokenizer: Any, final: bool = True) -> list[dict[str, Any]]:
    """Decode a split, with the averaged weights if the run keeps any.

    Args:
        run: the run's specs.
        engine: holds the model.
        data: the split.
        tokenizer: turns ids into text.
        final: at the end of a run, with a progress bar on a terminal; False: between epochs, where a task may decode
            in a cheaper way.

    Returns:
        a row for each example, in the split's order: id, reference, hypothesis, score, loss, what the task adds.
    """
    from rich.console import Console
    from rich.progress import track

    hidden = not (final and Console().is_terminal)
    planned = data.plan.in_order()
    if not engine.sharded:  # each process decodes its share of the batches; sharded weights need all processes for each
        planned = planned[engine.rank :: engine.ranks]
    batches = engine.batches(data.collator, planned, 0)
    rows: list[tuple[int, dict[str, Any]]] = []
    with naming_examples(data.split), engine.averaged():
        for batch in track(batches, "evaluate", len(planned), transient=True, disable=hidden):
            rows += run.task.evaluate(engine, batch, tokenizer, final)
    # with sharded weights every process has all rows: those of rank 0 count, so that no last bit lets decisions differ
    decoded = dict(gather(engine, [] if engine.sharded and engine.rank else rows))
    return [{"id": data.split.ids[i], "reference": data.split.texts[i]} | decoded[i] for i in range(len(data.split))]
