"""A user's inputs for prediction: taken in chunks, decoded, made short enough for the model, and checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data import pipeline
from toolkit.data.columns.column import Columns, Question
from toolkit.data.problems import Problem
from toolkit.data.split import Learned, Split, encoded
from toolkit.errors import DataError

if TYPE_CHECKING:
    from toolkit.config.schema import Run

CHUNK = 1024  # inputs that are answered together
CHUNK_BYTES = 32 << 20  # of their files, so that memory and temporary files are bounded


@dataclass(frozen=True)
class Questions:
    """Inputs of a user, ready for prediction. One that is neither a problem nor in the split is blank.

    Args:
        names: of all inputs, in their order.
        split: the usable inputs, or pieces of them; their answers are unknown.
        owners: for each of those, the position of its input, in ascending order.
        problems: of the inputs without an answer, by position.
        notes: a line for each input that was cut or split.
    """

    names: Sequence[str]
    split: Split
    owners: Sequence[int]
    problems: Mapping[int, Problem]
    notes: Sequence[str] = ()


def chunks(asked: Iterable[Question | Problem]) -> Iterator[list[Question | Problem]]:
    """Yield inputs in lists of at most ``CHUNK``, each of which ends with the file that makes it ``CHUNK_BYTES``."""
    chunk: list[Question | Problem] = []
    size = 0
    for item in asked:
        chunk.append(item)
        size += 0 if isinstance(item, Problem) else item.size
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def prepare(
    run: Run, columns: Columns, asked: Sequence[Question | Problem], learned: Learned, cache: Path
) -> list[Questions]:
    """Decode and check a user's inputs.

    Args:
        run: the run's specs.
        columns: the run's columns.
        asked: values and problems of the input column.
        learned: the state that the run learned.
        cache: gets the decoded files.

    Returns:
        the inputs in their order; one by one if they do not go together, such as images of several sizes.

    Raises:
        DataError: the number of answers is unknown, because a file of lines cannot be read.
    """
    if unknown := [str(item) for item in asked if isinstance(item, Problem) and item.fatal]:
        raise DataError(unknown)
    together = _prepare(run, columns, asked, learned, cache)
    if len(asked) == 1 or not any(problem.fatal for problem in together.problems.values()):
        return [together]
    return [_prepare(run, columns, [item], learned, None) for item in asked]


def _prepare(
    run: Run, columns: Columns, asked: Sequence[Question | Problem], learned: Learned, cache: Path | None
) -> Questions:
    column = columns.input
    names, values, problems = _checked(columns, asked)
    places = list(values)
    with pipeline.progress(transient=True) as bars:
        wheres = [names[place] for place in places]
        decoded = column.decode_questions(list(values.values()), wheres, cache, bars)
    for flaw in decoded.flaws:
        problems[places[flaw.position]] = Problem(flaw.kind, wheres[flaw.position], flaw.message, flaw.fatal)
    places = [places[i] for i in decoded.positions]
    whole = encoded(columns, _split([names[place] for place in places], decoded.values), learned)
    shortened = column.shorten(whole.input, run.task.limit(run), run.task.joins)
    notes = [f"{names[places[i]]}: {message}" for i, message in shortened.notes]
    owners = [places[i] for i in shortened.positions]
    split = _split([names[owner] for owner in owners], shortened.values)
    for i, problem in pipeline.unfit(run, columns, split, learned).items():
        problems.setdefault(owners[i], problem)
    kept = [i for i, owner in enumerate(owners) if owner not in problems]
    return Questions(names, split.select(kept), [owners[i] for i in kept], dict(sorted(problems.items())), notes)


def _checked(
    columns: Columns, asked: Sequence[Question | Problem]
) -> tuple[list[str], dict[int, Any], dict[int, Problem]]:
    """Return the names of the inputs, and by position the values of the usable ones and the problems of the others."""
    names: list[str] = []
    values: dict[int, Any] = {}
    problems: dict[int, Problem] = {}
    for place, item in enumerate(asked):
        if isinstance(item, Problem):
            names.append(item.where)
            problems[place] = item
            continue
        names.append(item.origin)
        value, kind, message = (None, "", "") if item.blank else columns.input.check(item.value)
        if kind:
            problems[place] = Problem(kind, item.origin, message)
        elif not item.blank:
            values[place] = value
    return names, values, problems


def _split(names: list[str], values: Any) -> Split:
    return Split("inputs", names, names, values)
