"""Accuracy, confusions, and the rates of each class."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.metrics.classes import ACCURACY, TOP5, accuracy, confusions, per_class


def test_accuracy_is_the_share_of_right_answers() -> None:
    assert accuracy(["one", "two", "a b"], ["one", "too", "a  b"]) == pytest.approx(1 / 3)  # names, not prose
    assert accuracy([], []) == 0
    with pytest.raises(ValueError):
        accuracy(["a"], [])


def test_accuracies_are_percentages_of_which_more_is_better() -> None:
    for metric in (ACCURACY, TOP5):
        assert metric.format(0.38456) == "38.46 %" and metric.improves(0.2, 0.1) and not metric.improves(0.1, 0.2)


def rows_of(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"reference": reference, "hypothesis": hypothesis} for reference, hypothesis in pairs]


# cat: 2 of 3 right; dog: 1 of 2; eel: 0 of 1, never found; fox: never true
ANIMALS = [("cat", "cat"), ("cat", "cat"), ("cat", "dog"), ("dog", "dog"), ("dog", "fox"), ("eel", "cat")]


def test_confusions_and_rates_of_each_class() -> None:
    names, counts = confusions(rows_of(ANIMALS))
    assert names == ["cat", "dog", "eel", "fox"]
    assert counts.tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    wanted = [[2 / 3, 2 / 3, 2 / 3, 3], [1 / 2, 1 / 2, 1 / 2, 2], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert per_class(counts) == pytest.approx(np.array(wanted))


def test_classes_are_in_natural_order() -> None:
    given = ["sign 10", "sign 9", "Sign 1", "10", "9", "x", "09"]
    assert confusions(rows_of([(name, name) for name in given]))[0] == [
        "09",
        "9",
        "10",
        "Sign 1",
        "sign 9",
        "sign 10",
        "x",
    ]
