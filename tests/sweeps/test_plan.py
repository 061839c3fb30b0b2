"""Axes as words of the command line, and components of a sweep that are not supported."""

import pytest

from toolkit.config import compose
from toolkit.sweeps import launchers, search
from toolkit.sweeps.spec import Grid, Local


def test_a_launcher_and_a_search_of_ones_own_are_refused():
    assert launchers.check(Grid()) == ["launcher: found Grid, expected one of local, ray, slurm, submitit_local"]
    assert search.check(Local(), []) == ["sweep: found Local, expected sweep=grid or sweep=optuna"]


@pytest.mark.parametrize(
    "word, expected",
    [
        ("a.b=1,2", compose.Axis("a.b", ("1", "2"))),
        ("model=x,y", compose.Axis("model", ("x", "y"))),
        ("a=choice(x,y)", compose.Axis("a", ("x", "y"))),
        ("a=interval(0,1.5)", compose.Axis("a", low=0, high=1.5)),
        ("a=tag(log,interval(1e-4,1e-2))", compose.Axis("a", low=1e-4, high=1e-2, log=True)),
        ("a=int(interval(1,8))", compose.Axis("a", low=1, high=8, whole=True)),
        ("a=range(1,6,2)", compose.Axis("a", ("1", "3", "5"), ordered=True)),
    ],
)
def test_axes_are_written_as_hydra_writes_them(word, expected):
    problems = []
    fixed, found = compose.axes(["seed=3", word], problems)
    assert (fixed, found, problems) == (["seed=3"], [expected], [])
