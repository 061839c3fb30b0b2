"""Inference: answers to raw inputs, and metrics of splits."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.data import pipeline
from toolkit.data.columns.column import Columns
from toolkit.data.pipeline import Questions
from toolkit.data.problems import judge
from toolkit.data.split import Data, Learned, batched
from toolkit.errors import ConfigError
from toolkit.tasks.spec import Row
from toolkit.training.engine import Engine
from toolkit.training.evaluation import Evaluation, answer_split, evaluate

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@dataclass(frozen=True)
class Predictor:
    """Function from raw inputs to answers.

    Args:
        run: the run's specs.
        columns: columns of the task.
        learned: tokenizer and state of the features.
        engine: has the model with its weights.
    """

    run: Run
    columns: Columns
    learned: Learned
    engine: Engine

    def __call__(self, inputs: Sequence[str], warn: Callable[[str], None] = warnings.warn) -> list[Row]:
        """Answer inputs.

        Args:
            inputs: paths of audio or image files; lines of text, or paths of text files with a line for each.
            warn: gets a line for each dropped input; by default, each is a Python warning.

        Returns:
            a row for each input, in their order: ``id``, ``hypothesis``, ``score``, and the entries of the task. A
            blank line gets a blank answer.

        Raises:
            ConfigError: ``inputs`` is one text or path, not a list.
            DataError: an input cannot be used; lists every problem. ``dataset.on_bad=drop`` leaves such inputs out.
        """
        if isinstance(inputs, str | Path):
            raise ConfigError(f"inputs: found {str(inputs)!r}, expected a list: [{str(inputs)!r}]")
        with tempfile.TemporaryDirectory(prefix="toolkit-", ignore_cleanup_errors=True) as cache:
            questions = pipeline.questions(self.run, self.columns, inputs, self.learned, Path(cache))
            for line in judge(questions.problems, self.run.dataset.on_bad, "a prediction").lines:
                warn(f"dropped: {line}")
            return self._answer(questions)

    def _answer(self, questions: Questions) -> list[Row]:
        """Answer the usable inputs, in their order."""
        rows = []
        if len(questions.split):
            data = batched(self.run, self.columns, questions.split, self.learned, training=False)
            rows = answer_split(self.run, self.engine, data, self.learned.target)
        for place, name in questions.blank:
            rows.insert(place, {"id": name, "hypothesis": "", "score": 0.0})
        return rows

    def evaluate(self, data: Data) -> Evaluation:
        """Measure a split with known answers."""
        return evaluate(self.run, self.engine, data, self.learned.target)
