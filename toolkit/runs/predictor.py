"""Inference: answers to raw inputs, and metrics of splits."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from toolkit.data import questions
from toolkit.data.columns.column import Columns
from toolkit.data.problems import LISTED, Problem
from toolkit.data.questions import Questions
from toolkit.data.split import Data, Learned, batched
from toolkit.errors import ConfigError, DataError
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

    def __call__(self, inputs: Iterable[str], warn: Callable[[str], None] = warnings.warn) -> list[Row]:
        """Answer inputs; see :meth:`answers`, with the dataset's ``on_bad``."""
        return list(self.answers(inputs, self.run.dataset.on_bad, warn))

    def answers(
        self, inputs: Iterable[str], on_bad: Literal["refuse", "drop"], warn: Callable[[str], None] = warnings.warn
    ) -> Iterator[Row]:
        """Yield the answers to inputs as they are ready.

        Args:
            inputs: paths of audio or image files, or of folders of them; lines of text, or paths of text files with a
                line for each.
            on_bad: about an input that cannot be answered: "refuse" all before the first answer, or "drop" it, whose
                answer is then empty.
            warn: gets a line for each input without an answer, and for each that is cut or split to fit the model; by
                default, each is a Python warning.

        Yields:
            a row for each input, in their order: ``id``, ``hypothesis``, ``score``, and the entries of the task. The
            hypothesis of a blank line is empty; so is that of an input without an answer, whose row has ``problem``,
            the reason.

        Raises:
            ConfigError: ``inputs`` is one text or path, not a list.
            DataError: an input cannot be answered; lists every problem.
        """
        if isinstance(inputs, str | Path):
            raise ConfigError(f"inputs: found {str(inputs)!r}, expected a list: [{str(inputs)!r}]")
        asked = self.columns.input.questions(map(str, inputs))
        for chunk in questions.chunks(asked) if on_bad == "drop" else [list(asked)]:
            with tempfile.TemporaryDirectory(prefix="toolkit-", ignore_cleanup_errors=True) as cache:
                prepared = questions.prepare(self.run, self.columns, chunk, self.learned, Path(cache))
                problems = [problem for one in prepared for problem in one.problems.values()]
                if problems and on_bad == "refuse":
                    raise _refusal(problems, len(chunk))
                for problem in problems:
                    warn(f"not answered: {problem}")
                for line in (line for one in prepared for line in one.notes):
                    warn(line)
                rows = [row for one in prepared for row in self._answer(one)]
            yield from rows

    def _answer(self, asked: Questions) -> list[Row]:
        """Answer prepared inputs, in their order."""
        rows: list[Row] = []
        if len(asked.split):
            data = batched(self.run, self.columns, asked.split, self.learned, training=False)
            rows = answer_split(self.run, self.engine, data, self.learned.target, show_progress=False)
        pieces: dict[int, list[Row]] = {}
        for owner, row in zip(asked.owners, rows, strict=True):
            pieces.setdefault(owner, []).append(row)
        return [self._row(asked, place, pieces.get(place, [])) for place in range(len(asked.names))]

    def _row(self, asked: Questions, place: int, pieces: Sequence[Row]) -> Row:
        """Return the answer to one input from the answers to its pieces."""
        if len(pieces) == 1:
            return pieces[0]
        row: Row = {"id": asked.names[place], "hypothesis": "", "score": 0.0}
        if place in asked.problems:
            problem = asked.problems[place]
            return row | {"problem": f"{problem.kind}: {problem.message}"}
        return row | self.run.task.join(pieces) if pieces else row

    def evaluate(self, data: Data) -> Evaluation:
        """Measure a split with known answers."""
        return evaluate(self.run, self.engine, data, self.learned.target)


def _refusal(problems: Sequence[Problem], count: int) -> DataError:
    """Return the error of inputs that are refused as a whole."""
    lines = [str(problem) for problem in problems[:LISTED]]
    if len(problems) > LISTED:
        lines.append(f"... and {len(problems) - LISTED} more")
    if len(problems) < count:
        lines.append("dataset.on_bad=drop answers the others")
    return DataError(lines, f"{len(problems)} of {count} inputs cannot be answered:")
