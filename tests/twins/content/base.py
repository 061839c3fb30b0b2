"""Parts that the made content of every kind of column shares, and the search for it."""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.backend import ROOT
from toolkit.data.batch import Batch
from toolkit.data.columns.column import Column, Role

Arrays = dict[str, np.ndarray]

SEED = 11
ROWS = (0, 1, 2, 3)  # of the made examples
ALONE = (1, 2, 3)  # among them the shortest input, the longest, and no target: each is a batch of its own too


@dataclasses.dataclass(frozen=True)
class Content:
    """Made values of one kind of column.

    Args:
        batch: ``(features spec, role, rows, training)`` -> the column's fields of a batch; in training with drawn
            augmentation.
        learned: ``(features spec, role)`` -> what the column learned from the values.
        longer: field -> what is added to its second axis to make a batch with more padding, by role.
    """

    batch: Callable[[Any, Role, Sequence[int], bool], Batch]
    learned: Callable[[Any, Role], Any]
    longer: Mapping[Role, Mapping[str, int]] = dataclasses.field(default_factory=dict)


def content(kind: str) -> Content:
    """The made content of a kind of column: ``CONTENT`` of the file that is named after it.

    Raises:
        AssertionError: There is none.
    """
    path = Path(__file__).with_name(f"{kind}.py")
    assert path.exists(), f"{path.relative_to(ROOT)}: no such file, expected the made content of {kind} columns"
    made = importlib.import_module(f"tests.twins.content.{kind}").CONTENT
    assert isinstance(made, Content)
    return made


def columns() -> dict[str, type[Column[Any]]]:
    """Kind -> class, for every file of ``data/columns``."""
    found: dict[str, type[Column[Any]]] = {}
    for path in sorted(ROOT.glob("toolkit/data/columns/*.py")):
        if path.stem in ("__init__", "column"):
            continue
        module = importlib.import_module(f"toolkit.data.columns.{path.stem}")
        own = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
        classes = [c for c in own if issubclass(c, Column)]
        assert len(classes) == 1, f"{path}: expected one column, found {classes}"
        found[classes[0].kind] = classes[0]
    return found


def random(row: int, stream: int = SEED) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[stream, row]))


def learned_features(features: Any, values: Iterable[np.ndarray]) -> Arrays:
    """The state that features learn from values."""
    with tempfile.TemporaryDirectory() as folder:
        features.learn(values, Path(folder))
        return features.load(Path(folder))
