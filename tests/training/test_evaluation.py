"""The evaluation of a split."""

from tests.support.training import TARGET, VALID, Engine, Thing, run
from toolkit.training.evaluation import evaluate


def test_evaluation_rows_stand_in_the_splits_order():
    found = evaluate(run(), Engine(), VALID, TARGET)
    assert [row["id"] for row in found.rows] == VALID.split.ids


def test_answers_are_brought_to_the_form_of_the_references(monkeypatch):
    monkeypatch.setattr(Thing, "comparable", lambda self, answer: answer.replace("2", "0"))
    rows = evaluate(run(), Engine(), VALID, TARGET).rows
    changed = [row for row in rows if "raw" in row]
    assert changed and {(row["raw"], row["hypothesis"]) for row in changed} == {("2", "0")}
    assert "2" not in {row["hypothesis"] for row in rows}
