"""Classification of images.

The loss of an image under label smoothing (Szegedy et al. 2016, section 7) with K classes is

    (1 - eps) * -log p(class) + eps / K * sum over all classes of -log p

in nats. If another image is mixed in (Zhang et al. 2018, equation 1), it is ``share`` times that plus ``1 - share``
times the same for the class of the other image. The loss of a batch is the mean over its images. Evaluation uses no
smoothing, so that its loss can be compared between runs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.columns.label import Classes
from toolkit.metrics import classes as metrics
from toolkit.metrics import confusion
from toolkit.metrics.metric import LOSS, Metric
from toolkit.tasks.spec import Outputs, Row, Rows, Task

LIKELIEST = 5  # most classes named in a row


@spec
class Classification(Task):
    """Image to label."""

    input: ClassVar[str] = "image"
    target: ClassVar[str] = "label"
    output: ClassVar[str] = "classes"
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, metrics.ACCURACY, metrics.TOP5)

    label_smoothing: float = option(0.0, "share of the target that is spread over all classes (eps)", ge=0, lt=1)
    monitor: Literal["accuracy", "loss"] = option("accuracy", "metric on validation that selects the best checkpoint")

    def decode(self, outputs: Outputs, target: Classes) -> list[Row]:
        """Decode ``log_probs (batch, classes)``.

        A row's ``score`` is the probability of its class. With more than five classes, ``top5`` names the five most
        likely, best first. Ties are broken by the lower id.
        """
        log_probs = outputs["log_probs"]
        best = np.argsort(-log_probs, axis=1, kind="stable")[:, :LIKELIEST]
        rows = []
        for values, ids in zip(log_probs, best.tolist(), strict=True):
            names = [target.names[i] for i in ids]
            row = {"hypothesis": names[0], "score": float(np.exp(values[ids[0]]))}
            rows.append(row | ({"top5": names} if log_probs.shape[1] > LIKELIEST else {}))
        return rows

    def measure(self, rows: Rows, target: Any) -> dict[str, float]:
        """Compute accuracy and, with more than five classes, top-5 accuracy."""
        references, hypotheses = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
        values = {"accuracy": metrics.accuracy(references, hypotheses)}
        if rows and "top5" in rows[0]:
            values["top5"] = sum(row["reference"] in row["top5"] for row in rows) / len(rows)
        return values

    def detail(self, row: Mapping[str, Any]) -> Row:
        """Return ``right``: the predicted class is the true one."""
        return {"right": row["reference"] == row["hypothesis"]}

    def files(self, rows: Rows) -> dict[str, bytes]:
        """Return ``confusion_matrix.png``, and ``classes.csv`` with a line for each class."""
        names, counts = metrics.confusions(rows)
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(["class", "precision", "recall", "f1", "support"])
        for name, values in zip(names, metrics.per_class(counts), strict=True):
            table.writerow([name, *(f"{v:.6f}" for v in values[:3]), int(values[3])])
        return {"confusion_matrix.png": confusion.image(names, counts), "classes.csv": text.getvalue().encode()}

    def table(self, rows: Rows) -> str:
        """Return precision, recall and F1 of each class, or of those with the lowest F1 if there are many."""
        return confusion.table(*metrics.confusions(rows))
