"""The rows of a batch that each device and each process takes."""

import numpy as np
import pytest

from toolkit.data.batch import Part, rows, rows_of
from toolkit.data.columns.text import TextBatcher, Tokens
from toolkit.data.split import Collator
from toolkit.tasks.seq2seq.spec import Seq2Seq


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 64])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_parts_are_the_whole_batch(count, parts):
    batch = {"example": np.arange(count), "partners": np.arange(count)}
    cut = [rows(batch, *rows_of(part, parts, count)) for part in range(parts)]
    assert np.concatenate([part["example"] for part in cut]).tolist() == list(range(count))
    sizes = [len(part["example"]) for part in cut]
    assert max(sizes) - min(sizes) <= 1
    assert not any(part["partners"].any() for part in cut), "no row may point beyond its part"


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_a_process_makes_its_own_rows_of_a_batch_and_pads_them_as_the_whole(ranks):
    lengths = {"input": [1, 2, 9, 3, 4], "target": [4, 7, 2, 1, 3]}
    sides = [TextBatcher(Tokens.of([range(n) for n in counts]), role) for role, counts in lengths.items()]
    collator, positions = Collator(*sides), np.array([4, 2, 1, 0, 3])
    whole, amounts = collator(positions, 0), Seq2Seq().amounts
    parts = [Part(collator, rank, ranks, amounts)(positions, 0) for rank in range(ranks)]
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts if part["share"]]), values)
    for part in parts:
        own = slice(int(part["before"]), int(part["before"]) + len(part["example"]))
        assert not part["share"] or part["share"] == amounts(whole)[own].sum() / amounts(whole).sum()
