"""The contract of a task spec: a pair of columns, the metrics, and the decoding of a model's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from toolkit.data.columns.column import Flaw, Limit
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
    instead of ``predict``, and their ``evaluate`` returns the figures only. An axis of the state that grows with each
    step has size 0 in what ``begin`` returns: TensorFlow compiles ``advance`` with that size unknown.
    """

    input: ClassVar[str]  # kind of the input column
    target: ClassVar[str]  # kind of the target column
    output: ClassVar[str]  # output of the models that fit: frames, tokens, classes
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS,)
    measured: ClassVar[tuple[str, ...]] = ("loss",)
    autoregressive: ClassVar[bool] = False
    joins: ClassVar[bool] = False  # a user's input that is too long may be answered in pieces; else it is cut
    monitor: Any  # a field: name of the metric on validation by which the best checkpoint is chosen

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "loss" not in cls.measured:
            raise TypeError(f"{cls.__name__}.measured: found {cls.measured}, expected 'loss' among them")

    def metric(self, name: str) -> Metric:
        """Return one of the task's metrics; an unknown name is a rate."""
        return next((metric for metric in self.metrics if metric.name == name), Metric(name))

    def amounts(self, batch: Any) -> Any:
        """Return the weight of each row in the mean loss of a batch, ``(batch,)``: by default 1.

        Args:
            batch: numpy arrays, or tensors of either framework.
        """
        return batch["example"] * 0 + 1

    def unfit(self, run: Run, split: Split, learned: Learned) -> Iterator[Flaw]:
        """Yield the flaws of encoded examples that the run's model cannot take."""
        yield from ()

    def limit(self, run: Run) -> Limit | None:
        """Return the longest input that the run's model takes, in the unit of the input's lengths; None: unbounded."""
        return None

    def join(self, rows: Sequence[Row]) -> Row:
        """Return the answer to an input from the answers to its pieces, if the task ``joins`` them."""
        raise NotImplementedError

    def search(self, run: Run, batch: Any, quick: bool) -> Search:
        """Return the search of an autoregressive task for the answers to a batch.

        Args:
            run: the run's specs.
            batch: with the fields of the input column.
            quick: between epochs, when a cheaper search is enough.
        """
        raise NotImplementedError

    def decode(self, outputs: Outputs, target: Any) -> list[Row]:
        """Turn a batch's outputs into answers, in numpy.

        Args:
            outputs: of ``predict``, or of the search.
            target: learned by the target column: tokenizer or classes.
        """
        raise NotImplementedError

    def measure(self, rows: Rows, target: Any) -> dict[str, float]:
        """Measure a split: every metric but the mean loss, which is added if it is missing.

        Args:
            rows: answers with their references.
            target: values of the split's target column.
        """
        raise NotImplementedError

    def detail(self, row: Mapping[str, Any]) -> Row:
        """Return the entries that the predictions file adds to a row."""
        return {}

    def files(self, rows: Rows) -> dict[str, bytes]:
        """Return the files to write beside a split's predictions, by name."""
        return {}

    def table(self, rows: Rows) -> str:
        """Return a table of the test split's rows for the console; empty for none."""
        return ""

    def signatures(self, target: Any) -> dict[str, str]:
        """Return the exact definition of each metric that has several, by name; see :meth:`measure`."""
        return {}
