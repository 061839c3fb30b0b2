"""Made token ids, and steps of a search for them."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np

from tests.twins.content.base import Content, random
from toolkit.data.batch import Batch, pad
from toolkit.data.columns import text as text_column
from toolkit.data.columns.column import Role

# Lengths of the texts. As targets of the made utterances they are nearly as long as CTC can take; one target is empty.
TOKENS: dict[Role, tuple[int, ...]] = {"input": (5, 9, 1, 7), "target": (11, 5, 16, 0)}
VOCABULARIES: dict[Role, int] = {"input": 23, "target": 29}
STREAMS: dict[Role, int] = {"input": 1, "target": 2}


def text(role: Role, rows: Sequence[int]) -> Batch:
    """Made token ids."""
    sizes = TOKENS[role]
    ids = [random(row, STREAMS[role]).integers(1, VOCABULARIES[role], sizes[row]) for row in rows]
    return dict(zip(text_column.FIELDS[role], pad(ids, np.int32), strict=True))


BEAM, WALK = 2, 4


def walk(rows: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens and parents, ``(rows * BEAM,)`` int32 each, of some steps of a search; none crosses an example."""
    first = np.arange(len(rows) * BEAM, dtype=np.int32) // BEAM * BEAM
    draws = [random(row, 5) for row in rows]
    for step in range(WALK):
        tokens = [draw.integers(0, VOCABULARIES["target"], BEAM) if step else np.zeros(BEAM) for draw in draws]
        parents = [draw.integers(0, BEAM, BEAM) for draw in draws]
        yield np.concatenate(tokens).astype(np.int32), first + np.concatenate(parents).astype(np.int32)


CONTENT = Content(
    lambda features, role, rows, training: text(role, rows),
    lambda features, role: SimpleNamespace(size=VOCABULARIES[role]),
    {"input": {"source": 4}, "target": {"tokens": 3}},
)
