"""The contract of a task spec: a pair of columns, what is measured, and how a model's outputs become answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from toolkit.data.columns.column import Flaw
from toolkit.decoding.autoregressive import Search
from toolkit.metrics.metric import LOSS, Metric

if TYPE_CHECKING:
    from toolkit.config.schema import Run
    from toolkit.data.split import Learned, Split

Row = dict[str, Any]  # of the predictions file: "hypothesis", "score" and what the task adds
Rows = Sequence[Mapping[str, Any]]  # each has "reference" too
Outputs = Mapping[str, np.ndarray]  # of a batch; the first axis is the example


class Task:
    """Base of a task spec.

    Its twins have ``loss(batch)``, the training loss, ``predict(inputs)``, which sees neither targets nor augmentation,
    and ``evaluate(batch)``, which returns the outputs of ``predict`` and the figures named in ``measured`` for each
    example. Twins of an autoregressive task have ``begin(inputs, width)`` and ``advance(state, tokens, parents)``
    instead of ``predict``, and their ``evaluate`` returns the figures only.
    """

    input: ClassVar[str]  # kind of the input column
    target: ClassVar[str]  # kind of the target column
    output: ClassVar[str]  # of the models that can be trained on it: frames, tokens, classes
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS,)
    measured: ClassVar[tuple[str, ...]] = ("loss",)
    autoregressive: ClassVar[bool] = False
    monitor: Any  # a field: name of the metric on validation by which the best checkpoint is chosen

    def metric(self, name: str) -> Metric:
        """Return one of the task's metrics; an unknown name is a rate."""
        return next((metric for metric in self.metrics if metric.name == name), Metric(name))

    def amounts(self, batch: Any) -> Any:
        """Weight of each row in the mean that is a batch's loss: ``(batch,)``, here one for each.

        Args:
            batch: numpy arrays, or tensors of either framework.
        """
        return batch["example"] * 0 + 1

    def unfit(self, run: Run, split: Split, learned: Learned) -> Iterator[Flaw]:
        """Yield the flaws of encoded examples that the run's model cannot be trained on, or answer."""
        yield from ()

    def search(self, run: Run, batch: Any, quick: bool) -> Search:
        """Return how an autoregressive task searches for the answers to a batch.

        Args:
            run: the run's specs.
            batch: with the fields of the input column.
            quick: between epochs, where a cheaper search will do.
        """
        raise NotImplementedError

    def decode(self, outputs: Outputs, target: Any) -> list[Row]:
        """Turn a batch's outputs into answers, in numpy.

        Args:
            outputs: of ``predict``, or of the search.
            target: learned by the target column: tokenizer or classes.
        """
        raise NotImplementedError

    def measure(self, rows: Rows) -> dict[str, float]:
        """Measure a split, in the order of ``metrics``."""
        raise NotImplementedError

    def detail(self, row: Mapping[str, Any]) -> Row:
        """Return what the predictions file adds to a row."""
        return {}

    def files(self, rows: Rows) -> dict[str, bytes]:
        """Return files about a split's rows, by name, that stand beside the predictions."""
        return {}

    def table(self, rows: Rows) -> str:
        """Return what the console shows of the test split's rows."""
        return ""

    def signatures(self) -> dict[str, str]:
        """Return how each metric was computed, for those that have several definitions."""
        return {}
