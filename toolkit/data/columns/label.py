"""Labels: one class for each example, by name."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from toolkit.data.batch import Batch, Fields
from toolkit.data.columns.column import Column, Decoded, Flaw, Question, absent, selected
from toolkit.data.description import Counts, Description
from toolkit.data.problems import Problem, bad_name, nearest
from toolkit.errors import DataError, reading

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

FIELDS: Fields = {"labels": (("batch",), np.int32)}
FILE = "classes.json"
SHOWN = 10  # classes named in a message
DIGITS = 18  # of a class name that is sorted as a number


class Classes:
    """The classes of the training split, with ids from 0: numbers in ascending order, then other names in order.

    Names are normalised to Unicode NFC.

    Args:
        names: the i-th has id i.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self._ids = {name: i for i, name in enumerate(self.names)}

    @classmethod
    def of(cls, labels: Iterable[str]) -> Classes:
        """Collect the classes of labels."""
        return cls(sorted({unicodedata.normalize("NFC", label) for label in labels}, key=_order))

    def __len__(self) -> int:
        return len(self.names)

    def id(self, label: str) -> int | None:
        """Return the id of a class; None if the training split lacks it."""
        return self._ids.get(unicodedata.normalize("NFC", label))

    def describe(self) -> str:
        """List the first names, for a message."""
        return ", ".join(repr(name) for name in self.names[:SHOWN]) + ", ..." * (len(self) > SHOWN)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"classes": self.names}, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Classes:
        """Load the classes that :meth:`save` wrote.

        Raises:
            DataError: it is missing or damaged.
        """
        with reading(path, "classes"):
            names = json.loads(path.read_text("utf-8"))["classes"]
        strings = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
        if not strings or len(set(names)) < len(names):
            raise DataError(f"{path}: expected different names of classes")
        return cls(names)


def _order(name: str) -> tuple[bool, int, str]:
    number = int(name) if name.isdecimal() and len(name) <= DIGITS else None
    return number is None, number or 0, name


@dataclass(frozen=True)
class LabelValues:
    """Labels of a split.

    Args:
        names: of the classes.
        ids: ``(examples,)`` int32 once the classes are learned; -1 for unknown classes.
    """

    names: list[str]
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def header(self) -> str:
        return ""

    @property
    def records(self) -> Sequence[str]:
        return self.names

    @property
    def references(self) -> Sequence[str]:
        """The expected answers."""
        return self.names

    def describe(self) -> str:
        return f"{len(set(self.names))} classes"

    def select(self, kept: Sequence[int]) -> LabelValues:
        return selected(self, kept)


@dataclass(frozen=True)
class LabelBatcher:
    """Class ids of a batch.

    Args:
        ids: ``(examples,)`` int32 of the split.
    """

    ids: np.ndarray

    @property
    def fields(self) -> Fields:
        return FIELDS

    def lengths(self, places: np.ndarray) -> Batch:
        return {}

    def collate(self, places: np.ndarray, whole: Batch | None) -> Batch:
        return {"labels": self.ids[places]}

    def augment(self, batch: Batch, positions: np.ndarray, epoch: int) -> Batch:
        return {}


class Label(Column[LabelValues]):
    """One class for each example."""

    kind: ClassVar[str] = "label"
    noun: ClassVar[str] = "class"
    exclusive: ClassVar[bool] = True

    @property
    def folder(self) -> str:
        return "labels"

    def check(self, value: object) -> tuple[object, str, str]:
        name = "" if absent(value) else unicodedata.normalize("NFC", str(value))
        return (name, *bad_name(name)) if name.strip() else (name, "no class", "found no class name")

    def decode(
        self, values: Sequence[str], wheres: Sequence[str], cache: Path | None, progress: Bars
    ) -> Decoded[LabelValues]:
        return Decoded(LabelValues(list(values)), range(len(values)), [])

    def learn(self, values: Sequence[LabelValues], folder: Path) -> None:
        Classes.of(name for part in values for name in part.names).save(folder / FILE)

    def load(self, folder: Path) -> Classes:
        return Classes.load(folder / FILE)

    def size(self, learned: Classes) -> int:
        return len(learned)

    def encode(self, values: LabelValues, learned: Classes) -> LabelValues:
        ids = {name: learned.id(name) for name in set(values.names)}
        id_of = {name: -1 if i is None else i for name, i in ids.items()}
        return replace(values, ids=np.array([id_of[name] for name in values.names], np.int32))

    def unfit(self, values: LabelValues, learned: Classes) -> Iterator[Flaw]:
        messages: dict[str, str] = {}  # one for each class, since finding the nearest of many names is slow
        assert values.ids is not None
        for i in np.flatnonzero(values.ids < 0).tolist():
            name = values.names[i]
            if name not in messages:
                classes = f"which has {learned.describe()}{nearest(name, learned.names)}"
                messages[name] = f"{name!r} has no usable example in the training split, {classes}"
            yield Flaw(i, "unknown class", messages[name])

    def unfit_learned(self, learned: Classes) -> Iterator[tuple[str, str]]:
        if len(learned) < 2:
            found = f"dataset {type(self.dataset).__name__}: found only {learned.describe()}"
            yield "one class", f"{found}, expected at least two classes{self.dataset.layout_hint}"

    def describe(self, values: LabelValues, learned: Classes) -> Description:
        """Describe how often each class occurs."""
        ranked = Counter(values.names).most_common()
        (largest, most), (smallest, least) = ranked[0], ranked[-1]
        facts = (
            ("classes", f"{len(ranked):,}"),
            ("largest class", f"{largest}: {most:,}"),
            ("smallest class", f"{smallest}: {least:,}"),
            ("imbalance, largest / smallest", f"{most / least:.1f}"),
        )
        return Description(facts, counts=(Counts("classes", dict(ranked)),))

    def fields(self) -> Fields:
        return FIELDS

    def batcher(self, values: LabelValues, learned: Classes, seed: int | None) -> LabelBatcher:
        assert values.ids is not None
        return LabelBatcher(values.ids)

    def questions(self, inputs: Iterable[str]) -> Iterator[Question | Problem]:
        """Yield each input as the name of a class."""
        yield from (Question(name, name) for name in inputs)
