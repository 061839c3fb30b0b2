"""Splits of a dataset, as a whole and in batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from toolkit.data.batch import Batch, Collate, Fields, Static
from toolkit.data.columns.column import Batcher, Column, Columns
from toolkit.data.exchange import Ranks
from toolkit.data.plan import Plan, padding_efficiency, rounded
from toolkit.data.position import Position
from toolkit.data.problems import Report

if TYPE_CHECKING:
    from toolkit.config.schema import Run
    from toolkit.training.spec import Trainer


@dataclass(frozen=True)
class Split:
    """One split, decoded.

    Args:
        name: "train", "validation" or "test"; another one for the inputs of a user.
        ids: of the examples.
        origins: where the user finds the examples.
        input: values of the input column.
        target: values of the target column; None where the answers are unknown.
    """

    name: str
    ids: list[str]
    origins: list[str]
    input: Any
    target: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def references(self) -> Sequence[str]:
        """The expected answers."""
        return self.target.references

    def describe(self) -> str:
        """Describe the amount of data in a few words: "842 examples (0.70 h)"."""
        parts = [values.describe() for values in (self.input, self.target) if values is not None]
        content = ", ".join(part for part in parts if part)
        return f"{len(self):,} examples" + (f" ({content})" if content else "")

    def select(self, kept: Sequence[int]) -> Split:
        """Return the split with only the examples at these positions, in ascending order."""
        if len(kept) == len(self):
            return self
        ids, origins = ([names[i] for i in kept] for names in (self.ids, self.origins))
        target = None if self.target is None else self.target.select(kept)
        return Split(self.name, ids, origins, self.input.select(kept), target)


@dataclass(frozen=True)
class Corpus:
    """All splits of a dataset; ``fingerprint`` is a hash of ids, splits and contents."""

    splits: Mapping[str, Split]
    fingerprint: str
    report: Report


@dataclass(frozen=True)
class Learned:
    """The state that a run learned from its training split.

    Args:
        input, target: learned by the columns: a tokenizer, classes, the state of features.
        inputs, outputs: sizes of the model's input and output.
        features: arrays by name, the state of the features.
    """

    input: Any
    target: Any
    inputs: Any
    outputs: Any
    features: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Data:
    """One split in batches.

    The training loop uses it like a ``toolkit.data.stream.Stream``, which does not hold its split as a whole.

    Args:
        split: its examples.
        plan: its batches.
        collator: makes a batch from positions in the split and an epoch.
    """

    split: Split
    plan: Plan
    collator: Collate
    held: ClassVar[None] = None  # every process has the whole split; see ``toolkit.data.stream.Pool``

    @property
    def digest(self) -> str:
        """A hash that is equal if the same positions give the same batches."""
        return self.plan.digest

    def describe(self) -> str:
        return f"{self.split.describe()}, {len(self.plan)} batches an epoch"

    def steps(self, trainer: Trainer) -> int:
        """Return the optimizer steps of a run; the leftover batches of an epoch form one step."""
        steps = trainer.max_epochs * math.ceil(len(self.plan) / trainer.accumulate)
        return min(steps, trainer.max_steps or steps)

    def turn(self, engine: Ranks, at: Position) -> None:
        """Move to the next epoch if this one has no batch left."""
        at.stream = {}
        if at.batch >= len(self.plan):
            at.epoch, at.batch = at.epoch + 1, 0

    def source(self, engine: Ranks, at: Position) -> Data:
        """Return the examples that the next batches are taken from."""
        return self

    def batches(self, epoch: int) -> list[np.ndarray]:
        return self.plan.epoch(epoch)

    def batches_done(self, at: Position, accumulate: int) -> int:
        """Return the number of batches since the start, which keys the dropout masks."""
        return at.epoch * len(self.plan) + at.batch

    def passed(self, at: Position) -> float:
        """Return the number of examples up to a position."""
        return (at.epoch + at.batch / len(self.plan)) * len(self.split)

    def efficiency(self) -> float | None:
        """Return the share of an epoch's batches that is not padding."""
        plan = self.plan
        return padding_efficiency(plan.lengths, plan.epoch(0), plan.padded) if len(plan) else None

    def notes(self) -> Iterable[str]:
        """Return lines for the log at the end of training."""
        return ()

    def close(self) -> None:
        """Do nothing: nothing is prefetched."""


@dataclass(frozen=True)
class Collator:
    """A collator of a split, which combines the fields of its columns.

    Args:
        input: batcher of the input column.
        target: batcher of the target column; None where the answers are unknown.
        first: position number of the split's first example.
    """

    input: Batcher
    target: Batcher | None
    first: int = 0

    @property
    def fields(self) -> Fields:
        return EXAMPLE | self.input.fields | (self.target.fields if self.target else {})

    def measure(self, positions: np.ndarray) -> Batch:
        places = positions - self.first
        lengths = self.input.lengths(places) | (self.target.lengths(places) if self.target else {})
        return {"example": np.asarray(positions, np.int64)} | lengths

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        places = positions - self.first
        batch: Batch = {"example": np.asarray(positions, np.int64)}
        for batcher in (self.input, self.target):
            if batcher is not None:
                fields = batcher.collate(places, whole)
                batch |= fields | batcher.augment(fields, positions, epoch)
        return batch


EXAMPLE: Fields = {"example": (("batch",), np.int64)}  # position of the example in its split


def batch_fields(columns: Columns, kind: Literal["training", "evaluation", "prediction"]) -> Fields:
    """List the fields of a batch.

    A batch for training has both columns and the augmentation, one for evaluation both columns, and one for prediction
    only the input.
    """
    fields = EXAMPLE | columns.input.fields()
    if kind != "prediction":
        fields |= columns.target.fields()
    return fields | columns.input.augmentation() if kind == "training" else fields


def batched(run: Run, columns: Columns, split: Split, learned: Learned, training: bool) -> Data:
    """Cut a split into batches.

    Args:
        run: the run's specs.
        columns: the run's columns.
        split: an encoded split.
        learned: the state that the run learned.
        training: draw the augmentation.
    """
    seed = run.seed if training else None
    target = None
    pairs: list[tuple[Column[Any], Any]] = [(columns.input, split.input)]
    if split.target is not None:
        target = columns.target.batcher(split.target, learned.target, None)
        pairs.append((columns.target, split.target))
    collator: Collate = Collator(columns.input.batcher(split.input, learned.input, seed), target)
    lengths, per = _sizes(pairs, len(split))
    trainer = run.trainer
    padded = rounded(lengths) if trainer.static_shapes else None
    if padded is not None:
        collator = Static.of(collator, padded)
    if per is not None:
        lengths, padded = lengths / per, None if padded is None else padded / per
    plan = Plan(lengths, trainer.batch_budget, trainer.batch_examples, run.seed, padded, trainer.multiple)
    return Data(split, plan, collator)


def _sizes(pairs: Sequence[tuple[Column[Any], Any]], count: int) -> tuple[np.ndarray, int | None]:
    """Return the examples' sizes in the column of the highest precedence (the larger of two), and a unit's size."""
    precedence = max(column.precedence for column, _ in pairs)
    candidates = [column.lengths(values) for column, values in pairs if column.precedence == precedence]
    measured = [lengths for lengths in candidates if lengths is not None]
    if not measured:
        return np.ones(count), None
    return np.maximum.reduce([lengths.values for lengths in measured]), measured[0].per


def encoded(columns: Columns, split: Split, learned: Learned) -> Split:
    """Return the split with each value encoded once by the learned state."""
    target = split.target
    if target is not None:
        target = columns.target.encode(target, learned.target)
    return replace(split, input=columns.input.encode(split.input, learned.input), target=target)
