"""The contract of a column: one kind of content, as input or target of any task.

A task maps an input column to a target column. A column checks, decodes and caches values of its kind, learns from the
training split, measures the length of an example, and pads batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

import numpy as np

from toolkit.data.batch import Batch, Fields
from toolkit.data.description import Description, Sample
from toolkit.data.problems import Problem

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from toolkit.config.contracts import Features, Tokenizer
    from toolkit.config.schema import Run
    from toolkit.data.source import Source

Role = Literal["input", "target"]


class Values(Protocol):
    """The values of one column of one split."""

    def __len__(self) -> int: ...

    def select(self, kept: Sequence[int]) -> Self:
        """Return the values at these positions, in ascending order."""
        ...

    @property
    def header(self) -> str:
        """The properties that all values share, for the fingerprint."""
        ...

    @property
    def records(self) -> Sequence[str]:
        """A string for each value, equal for equal values: text or the SHA-256 of a file."""
        ...

    def describe(self) -> str:
        """Describe the amount in a few words, such as "0.70 h"; may be empty."""
        ...


V = TypeVar("V", bound=Values)


@dataclass(frozen=True)
class Flaw:
    """A flaw of one value.

    Args:
        position: of the example.
        kind, message, fatal: see :class:`toolkit.data.problems.Problem`.
    """

    position: int
    kind: str
    message: str
    fatal: bool = False


@dataclass(frozen=True)
class Decoded(Generic[V]):
    """The values that could be decoded, their positions, and the flaws of the others."""

    values: V
    positions: Sequence[int]
    flaws: list[Flaw]


@dataclass(frozen=True)
class Lengths:
    """Sizes of examples in the unit of the batch budget.

    Args:
        values: ``(examples,)``.
        per: number of them in one unit of the budget (samples in a second); None: they are in that unit.
    """

    values: np.ndarray
    per: int | None = None


@dataclass(frozen=True)
class Limit:
    """Size of the longest input that a run can answer, in the unit of :class:`Lengths`, and the field that sets it."""

    size: int
    field: str


@dataclass(frozen=True)
class Shortened(Generic[V]):
    """Values that a run can answer, made from longer ones.

    Args:
        values: each is a whole value or a piece of one.
        positions: of the values that they are made from, in ascending order.
        notes: position of each value that was cut or split, and a message about it.
    """

    values: V
    positions: Sequence[int]
    notes: Sequence[tuple[int, str]] = ()


class Batcher(Protocol):
    """A callable that makes the fields of one column for a batch."""

    @property
    def fields(self) -> Fields:
        """Names, axes and dtypes of the fields."""
        ...

    def lengths(self, places: np.ndarray) -> Batch:
        """Return the fields that hold lengths, by which the batch is padded; this needs no content."""
        ...

    def collate(self, places: np.ndarray, whole: Batch | None) -> Batch:
        """Return the fields, padded.

        Args:
            places: ``(batch,)`` positions in the values.
            whole: a batch with the fields of :meth:`lengths`: pad to their greatest values
                (:func:`toolkit.data.batch.widths`). None: pad to the longest of these examples.
        """
        ...

    def augment(self, batch: Batch, positions: np.ndarray, epoch: int) -> Batch:
        """Draw the augmentation of a training batch and return its fields; none in evaluation.

        Args:
            batch: the fields of :meth:`collate`.
            positions: ``(batch,)`` of the examples in their split, which key the draws.
            epoch: keys them too.
        """
        ...


@dataclass(frozen=True)
class Question:
    """One input of a user for prediction.

    Args:
        origin: its name in messages.
        value: as :meth:`Column.check` takes it.
        blank: it is empty, and so is its answer.
        size: of its file, in bytes.
    """

    origin: str
    value: object
    blank: bool = False
    size: int = 0


class Column(Generic[V]):
    """One kind of content, as input or target of a run.

    Args:
        name: of the dataset's column.
        role: input or target of the task.
        dataset: the spec, with the fields that this kind of column needs.
        component: the run's features or tokenizer, by ``group``.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]  # the word for one value in messages
    group: ClassVar[Literal["features", "tokenizer"] | None] = None  # the component that learns from it
    precedence: ClassVar[int] = 0  # the highest gives the batch budget its unit: examples, tokens, seconds
    decodes: ClassVar[bool] = False  # the values are files
    exclusive: ClassVar[bool] = False  # as target: equal inputs must have equal targets
    shown: ClassVar[int] = 4  # as input: examples of each split that check=true shows
    answer: ClassVar[str] = "{id}\t{hypothesis}"  # format of an answer as a line of text, if this is the input

    def __init__(self, name: str, role: Role, dataset: Source, component: Features | Tokenizer | None) -> None:
        self.name, self.role, self.dataset, self.component = name, role, dataset, component

    @property
    def folder(self) -> str | None:
        """The folder of this column's learned state in a run folder; columns with the same folder learn together."""
        return self.group

    # --- values ---

    def check(self, value: object) -> tuple[object, str, str]:
        """Return the cleaned value, and kind and message of its flaw: two empty strings if there is none."""
        return value, "", ""

    def excerpt(self, value: object) -> str:
        """Return the beginning of a raw value, for messages about the value beside it; may be empty."""
        return ""

    def decode(self, values: Sequence[Any], wheres: Sequence[str], cache: Path | None, progress: Bars) -> Decoded[V]:
        """Decode raw values, into the cache folder or, without one, into memory.

        Args:
            values: as :meth:`check` returned them.
            wheres: names of their examples in messages.
            cache: root of the caches.
            progress: a running ``rich.progress.Progress``.
        """
        raise NotImplementedError

    @classmethod
    def conflicts(cls, dataset: Any) -> Iterator[tuple[str, str]]:
        """Yield ``(field, message)`` for each of the dataset's fields that this kind of column cannot use."""
        yield from ()

    def comparable(self, answer: str) -> str:
        """Return an answer in the form of the references, before it is scored."""
        return answer

    # --- what is learned ---

    def learn(self, values: Sequence[V], folder: Path) -> None:
        """Learn from the training values of all columns that share ``folder``."""

    def load(self, folder: Path) -> Any:
        """Load the state that :meth:`learn` wrote.

        Raises:
            DataError: it is missing or damaged.
        """
        return None

    def size(self, learned: Any) -> Any:
        """Return the size of the model's input or output: vocabulary, classes, bands, or (height, width, channels)."""
        raise NotImplementedError

    def state(self, learned: Any) -> Mapping[str, np.ndarray]:
        """Return the arrays that the twins of the features need."""
        return {}

    def encode(self, values: V, learned: Any) -> V:
        """Return the values encoded once by the learned state, for example as token ids."""
        return values

    def unfit(self, values: V, learned: Any) -> Iterator[Flaw]:
        """Yield the flaws of encoded values with respect to the learned state."""
        yield from ()

    def unfit_learned(self, learned: Any) -> Iterator[tuple[str, str]]:
        """Yield kind and message of problems that make the whole training split unusable."""
        yield from ()

    def notes(self, values: V, learned: Any) -> Iterator[str]:
        """Yield lines for the user about values that are kept."""
        yield from ()

    def describe(self, values: V, learned: Any) -> Description:
        """Describe encoded values, at least one, for ``check=true``."""
        return Description(((self.noun, values.describe()),))

    def sample(self, values: V, i: int) -> Sample:
        """Return one value to read, to see or to hear."""
        return Sample(values.records[i])

    # --- batches ---

    def lengths(self, values: V) -> Lengths | None:
        """Return the sizes of encoded values by which examples are batched; None if all count the same."""
        return None

    def fields(self) -> Fields:
        """Return names, axes and dtypes of this column's fields of a batch."""
        raise NotImplementedError

    def augmentation(self) -> Fields:
        """Return the fields of a training batch for its augmentation."""
        return {}

    def batcher(self, values: V, learned: Any, seed: int | None) -> Batcher:
        """Create the batcher of encoded values; ``seed`` keys the augmentation, None turns it off."""
        raise NotImplementedError

    # --- prediction ---

    def questions(self, inputs: Iterable[str]) -> Iterator[Question | Problem]:
        """Convert a user's inputs to values, or to the problems with them, one at a time and in their order.

        Each value and each problem is one answer; a folder or a file of lines has several.
        """
        raise NotImplementedError

    def decode_questions(
        self, values: Sequence[Any], wheres: Sequence[str], cache: Path | None, progress: Bars
    ) -> Decoded[V]:
        """Decode a user's inputs, see :meth:`decode`; one that is too long is no flaw, but for :meth:`shorten`."""
        return self.decode(values, wheres, cache, progress)

    def shorten(self, values: V, limit: Limit | None, pieces: bool) -> Shortened[V]:
        """Cut or split a user's inputs that are longer than this column or the model takes.

        Args:
            values: encoded.
            limit: of the model; None: unbounded.
            pieces: the task joins answers to pieces, so a long input may be split; else it is cut.
        """
        return Shortened(values, range(len(values)))


@dataclass(frozen=True)
class Columns:
    """The input and the target column of a run."""

    input: Column[Any]
    target: Column[Any]

    def __iter__(self) -> Iterator[Column[Any]]:
        return iter((self.input, self.target))


def columns_of(run: Run) -> Columns:
    """Select the columns of the run's dataset that its task needs."""
    names = _names(run.dataset.columns, run.task.input, run.task.target)
    assert names is not None  # checked with the config
    components = {"features": run.features, "tokenizer": run.tokenizer, None: None}
    kinds = [run.dataset.columns[name] for name in names]
    source, target = kinds
    return Columns(
        source(names[0], "input", run.dataset, components[source.group]),
        target(names[1], "target", run.dataset, components[target.group]),
    )


def _names(columns: Mapping[str, type[Column[Any]]], source: str, target: str) -> tuple[str, str] | None:
    """Find the names of the first column of the input's kind and of the last other column of the target's kind."""
    inputs = [name for name, kind in columns.items() if kind.kind == source]
    targets = [name for name, kind in columns.items() if kind.kind == target and name not in inputs[:1]]
    return (inputs[0], targets[-1]) if inputs and targets else None


def mismatches(columns: Mapping[str, type[Column[Any]]], run: Run) -> Iterator[tuple[str, str]]:
    """Yield ``(field, message)`` for a task, features, tokenizer or model that does not fit a dataset's columns."""
    available = " and ".join(f"{name} ({kind.kind})" for name, kind in columns.items())
    task = type(run.task).__name__
    if (names := _names(columns, run.task.input, run.task.target)) is None:
        yield "columns", f"found {available}, but task {task} maps {run.task.input} to {run.task.target}"
        return
    kinds = [columns[name] for name in names]
    for group, component in (("features", run.features), ("tokenizer", run.tokenizer)):
        kinds_of_group = [kind.kind for kind in kinds if kind.group == group]
        if component is None and kinds_of_group:
            yield group, f"found none, expected {group} for {kinds_of_group[0]}; set {group}=NAME"
        if component is not None and component.column not in kinds_of_group:
            name = type(component).__name__
            expected = f"{group}=none" if not kinds_of_group else f"{group} for {kinds_of_group[0]}"
            yield group, f"found {name}, which is for {component.column}, expected {expected}"
    if (run.model.input, run.model.output) != (run.task.input, run.task.output):
        mapping = f"found {type(run.model).__name__}, which maps {run.model.input} to {run.model.output}"
        yield "model", f"{mapping}; task {task} needs {run.task.input} to {run.task.output}"


def absent(value: object) -> bool:
    """Tell whether a source gave no value: None, or NaN, which readers of tables give for an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def selected(values: Any, kept: Sequence[int], **others: Any) -> Any:
    """Return a dataclass of values reduced to some positions.

    Args:
        values: each of its lists and arrays has one element for each value.
        kept: the positions.
        others: new contents of fields with another structure.
    """
    for field in fields(values):
        content = getattr(values, field.name)
        if field.name in others:
            continue
        if isinstance(content, list):
            others[field.name] = [content[i] for i in kept]
        elif isinstance(content, np.ndarray):
            others[field.name] = content[list(kept)]
    return replace(values, **others)


def flaws(problems: Iterable[tuple[int, str, str]]) -> list[Flaw]:
    """Convert a cache's problems ``(item, kind, message)`` to flaws."""
    return [Flaw(*problem) for problem in problems]
