"""Results of a finished run: metrics and predictions of its splits, and a summary."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.split import Data, Learned
from toolkit.runs.folder import RunFolder
from toolkit.runs.predictor import Predictor
from toolkit.tasks.spec import Task

if TYPE_CHECKING:
    from toolkit.config.schema import Run


def measure(
    predictor: Predictor, data: Mapping[str, Data], folder: RunFolder
) -> tuple[dict[str, dict[str, float]], str, dict[str, float]]:
    """Evaluate every split except train, or the one that the config names, and write the predictions.

    Returns:
        the metrics by split, the task's table of the test split, and the evaluation time in ms per example.
    """
    run, task = predictor.run, predictor.run.task
    metrics, table, speed = {}, "", {}
    for name in [run.dataset.split] if run.dataset.split else [name for name in data if name != "train"]:
        if not len((split := data[name]).split):
            continue
        start = time.perf_counter()
        evaluation = predictor.evaluate(split)
        seconds = time.perf_counter() - start  # the last split counts: by then everything is compiled
        speed["evaluation_ms_per_example"] = round(1000 * seconds / len(split.split), 3)
        metrics[name] = evaluation.metrics
        folder.write_predictions(name, (row | task.detail(row) for row in evaluation.rows))
        for file, content in task.files(evaluation.rows).items():
            folder.write_prediction_file(f"{name}_{file}", content)
        table = task.table(evaluation.rows) if name == "test" else table
    return metrics, table, speed


def parameters(run: Run, learned: Learned) -> int:
    """Count the trainable values of the model."""
    shapes = run.model.parameters(learned.inputs, learned.outputs).values()
    return sum(int(np.prod(parameter.shape)) for parameter in shapes if parameter.trainable)


def summarize(task: Task, results: Mapping[str, Any], folder: RunFolder) -> None:
    """Print the table of metrics at the end of a run."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(n for m in results["metrics"].values() for n in m))
    table = Table(title=f"{results['recipe']}, {results['backend']}, seed {results['seed']}")
    for heading in ("split", *names):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, values in results["metrics"].items():
        table.add_row(f"{split} ({results['examples'][split]:,})", *(task.metric(n).format(values[n]) for n in names))
    console = Console(width=100)
    with console.capture() as text:
        console.print(table)
    folder.say(text.get().rstrip())
    trained = f", {results['train_seconds']:.0f} s of training" if "train_seconds" in results else ""
    folder.say(
        f"{results['parameters']:,} parameters, best at step {results['step']}{trained}, "
        f"{results['wall_seconds']:.0f} s in total"
    )
    folder.say(f"run folder: {folder.path}")
