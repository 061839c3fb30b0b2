"""Searches by Optuna: studies that sweeps share, samplers, importance."""

import pytest

from toolkit.config import compose
from toolkit.sweeps import search
from toolkit.sweeps.spec import Optuna


def test_sweeps_that_begin_together_on_one_study_draw_other_trials(tmp_path):
    spec = Optuna(trials=9, sampler="random", storage=f"sqlite:///{tmp_path / 'all.db'}", study="both")
    axes = [compose.Axis("x", low=0.0, high=1.0)]
    both = [search.search(spec, axes, tmp_path / uid, uid, ["minimize"], False) for uid in "ab"]
    asked = [study.ask() for study in both for _ in range(3)]
    assert len({number for number, _ in asked}) == len({params["x"] for _, params in asked}) == 6
    # nor does either take what the other is at, when it goes on
    again = search.search(spec, axes, tmp_path / "a", "a", ["minimize"], False)
    assert [again.ask() for _ in range(3)] == asked[:3] and again.ask()[0] == 6


def test_a_sampler_does_not_repeat_itself_after_an_interruption(tmp_path):
    axes = [compose.Axis("x", low=0.0, high=1.0)]
    seen = []
    for _ in range(2):
        study = search.search(Optuna(trials=8, sampler="random"), axes, tmp_path, "u", ["minimize"], False)
        for _ in range(3):
            number, params = study.ask()
            seen.append(params["x"])
            study.tell(number, [float(params["x"])])
    assert len(set(seen)) == 6


def test_few_trials_tell_nothing_of_importance():
    rows = [{"a": f"{n / 12}", "b": f"{n * 5 % 12}"} for n in range(12)]
    values = [float(row["a"]) for row in rows]
    found = search.importance(["a", "b"], rows, values)
    assert list(found) == ["a", "b"] and sum(found.values()) == pytest.approx(1) and found["a"] > 0.8
    assert search.importance(["a", "b"], rows[:9], values[:9]) == {}
