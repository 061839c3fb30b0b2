"""Problems with data: what a refusal says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.data.problems import Problem, judge
from toolkit.errors import DataError

BAD, FATAL = Problem("silent", "a.wav", "all 0"), Problem("unreadable file", "b.tsv", "denied", fatal=True)


@pytest.mark.parametrize(
    ("on_bad", "problems", "advised"),
    [("refuse", [BAD], True), ("refuse", [BAD, FATAL], False), ("drop", [BAD, FATAL], False)],
)
def test_dropping_is_advised_only_where_it_helps(on_bad: str, problems: list[Problem], advised: bool) -> None:
    with pytest.raises(DataError) as error:
        judge(problems, on_bad, "a test")
    lines = [str(problem) for problem in sorted(problems, key=lambda problem: not problem.fatal)]
    assert error.value.problems == lines + ["Fix them, or drop them with dataset.on_bad=drop"] * advised


def test_an_allowance_covers_no_fatal_problem() -> None:
    of_train, of_test = replace(BAD, split="train"), replace(BAD, split="test")
    allowed = {"train": 1}
    assert judge([of_train], "refuse", "a test", allowed).dropped == {"silent": 1}
    for problems in ([of_train, of_train], [replace(FATAL, split="train")], [of_test], [BAD]):
        with pytest.raises(DataError):
            judge(problems, "refuse", "a test", allowed)
