"""A new kind of column: numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from toolkit.data.batch import Batch, Fields
from toolkit.data.columns.column import Column, Decoded, Question, selected
from toolkit.errors import reading

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

FIELDS: Fields = {"numbers": (("batch",), np.float32)}  # of mean 0 and deviation 1 over the training split
FILE = "scale.json"


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of the training split."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class NumberValues:
    """Numbers of a split.

    Args:
        numbers: ``(examples,)`` float64, as the data has them.
    """

    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def header(self) -> str:
        return ""

    @property
    def records(self) -> Sequence[str]:
        return [f"{number:g}" for number in self.numbers]

    @property
    def references(self) -> Sequence[str]:
        return self.records

    def describe(self) -> str:
        return f"{self.numbers.min(initial=0):g} to {self.numbers.max(initial=0):g}"

    def select(self, kept: Sequence[int]) -> NumberValues:
        return selected(self, kept)


@dataclass(frozen=True)
class NumberBatcher:
    """Scaled numbers of a batch."""

    scaled: np.ndarray

    @property
    def fields(self) -> Fields:
        return FIELDS

    def lengths(self, places: np.ndarray) -> Batch:
        return {}

    def collate(self, places: np.ndarray, whole: Batch | None) -> Batch:
        return {"numbers": self.scaled[places]}

    def augment(self, batch: Batch, positions: np.ndarray, epoch: int) -> Batch:
        return {}


class Number(Column[NumberValues]):
    """One number for each example."""

    kind: ClassVar[str] = "number"
    noun: ClassVar[str] = "number"
    exclusive: ClassVar[bool] = True

    @property
    def folder(self) -> str:
        return "number"

    def check(self, value: object) -> tuple[object, str, str]:
        try:
            return float(str(value)), "", ""
        except ValueError:
            return value, "no number", f"found {value!r}, expected a number"

    def decode(
        self, values: Sequence[float], wheres: Sequence[str], cache: Path | None, progress: Bars
    ) -> Decoded[NumberValues]:
        return Decoded(NumberValues(np.array(values, np.float64)), range(len(values)), [])

    def learn(self, values: Sequence[NumberValues], folder: Path) -> None:
        numbers = np.concatenate([part.numbers for part in values])
        content = {"mean": float(numbers.mean()), "deviation": float(numbers.std()) or 1.0}
        (folder / FILE).write_text(json.dumps(content), "utf-8")

    def load(self, folder: Path) -> Scale:
        with reading(folder / FILE, "scale of numbers"):
            return Scale(**json.loads((folder / FILE).read_text("utf-8")))

    def size(self, learned: Scale) -> int:
        return 1

    def fields(self) -> Fields:
        return FIELDS

    def batcher(self, values: NumberValues, learned: Scale, seed: int | None) -> NumberBatcher:
        return NumberBatcher(((values.numbers - learned.mean) / learned.deviation).astype(np.float32))

    def questions(self, inputs: Sequence[str]) -> Iterator[Question | tuple[str, str, str]]:
        yield from (Question(text, text) for text in inputs)
