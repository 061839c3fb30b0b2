"""What the specs of all tasks share: what a task may leave in the run folder, nothing unless it says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]  # of the predictions: each has "reference" and "hypothesis"


class Task:
    """Inherited by the spec of a task, which overrides what it has an answer to.

    A task adds ``evaluate(engine, batch, tokenizer, final)`` and ``measure(rows)``.
    """

    def amounts(self, batch: Any) -> Any:
        """How much each row counts in the mean that is a batch's loss: ``(batch,)``, here one for each.

        Args:
            batch: numpy arrays, or tensors of either framework.
        """
        return batch["example"] * 0 + 1

    def detail(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the predictions file says beside a row."""
        return {}

    def files(self, rows: Rows) -> dict[str, bytes]:
        """Files of a split's rows, by name, that stand beside the predictions."""
        return {}

    def table(self, rows: Rows) -> str:
        """What the console shows of the test split's rows."""
        return ""

    def signatures(self) -> dict[str, str]:
        """How each measure was taken, for those that can be taken in several ways."""
        return {}
