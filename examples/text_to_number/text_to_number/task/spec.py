"""Text to number: the loss is half the squared error of the scaled number, averaged over the batch."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from text_to_number.number import Scale
from toolkit.config.spec import option, spec
from toolkit.metrics.metric import LOSS, Metric
from toolkit.tasks.spec import Outputs, Row, Rows, Task


@spec
class Regression(Task):
    """Text to number."""

    input: ClassVar[str] = "text"
    target: ClassVar[str] = "number"
    output: ClassVar[str] = "number"
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, Metric("mae", decimals=1))

    monitor: Literal["mae", "loss"] = option("mae", "metric on validation that selects the best checkpoint")

    def decode(self, outputs: Outputs, target: Scale) -> list[Row]:
        """Decode ``scaled (batch,)``."""
        numbers = outputs["scaled"].astype(np.float64) * target.deviation + target.mean
        return [{"hypothesis": f"{number:.1f}", "score": 0.0} for number in numbers]

    def measure(self, rows: Rows, target: object) -> dict[str, float]:
        """Mean absolute error."""
        return {"mae": float(np.mean([abs(float(row["reference"]) - float(row["hypothesis"])) for row in rows]))}
