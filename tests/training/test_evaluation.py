"""The evaluation of a split."""

from tests.support.training import TARGET, VALID, Engine, run
from toolkit.training.evaluation import evaluate


def test_evaluation_rows_stand_in_the_splits_order():
    found = evaluate(run(), Engine(), VALID, TARGET)
    assert [row["id"] for row in found.rows] == VALID.split.ids
