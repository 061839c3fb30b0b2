"""The page of a sweep and its plots."""

import math
from dataclasses import asdict
from pathlib import Path

import pytest

from toolkit.config import compose
from toolkit.sweeps import page, plots
from toolkit.sweeps.state import Job, Objective, State, Trial
from toolkit.tasks.classification.spec import Classification


def test_a_page_is_made_of_anything(tmp_path):
    """Draw no trial, one trial, objectives that are no numbers, values that a plot would take for formulas."""
    objectives = [Objective.named("validation.loss", Classification())]
    for values in ([], [0.5], [math.nan, math.inf], [0.5, 0.5, 0.5, 0.5 + 1e-12], [1.0, 2.0, 3.0, 4.0]):
        sweep = State("u", [], {}, "x", ["a", "b"], objectives, len(values))
        for number, value in enumerate(values):
            params = {"a": "$x$ <b> $y$" if number % 2 else "nan", "b": str(10.0**number)}
            sweep.trials.append(Trial(number, params, [Job(str(number), state="done")], [[value]]))
        page.write(sweep, tmp_path)
        made = (tmp_path / "sweep.html").read_text()
        assert "could not be drawn" not in made and "<b> $y$" not in made


def sought(key, word, values):
    """A search over one range, of which some trials are done."""
    axis = compose.axes([f"{key}={word}"], [])[1][0]
    sweep = State(
        "u", [], {"axes": [asdict(axis)]}, "x", [key], [Objective.named("validation.accuracy", Classification())], 9
    )
    for number, value in enumerate(values):
        sweep.trials.append(Trial(number, {key: str(value)}, [Job(str(number), state="done")], [[0.5 + 0.01 * number]]))
    return sweep


@pytest.mark.parametrize(
    "word, values, scale, below",
    [
        ("tag(log,interval(1e-4,1e-2))", [2.1342e-4, 5e-4, 9e-4, 3.1e-3], "log", ["0.0003", "0.001", "0.003"]),
        ("tag(log,interval(1e-4,1e-2))", [2.02e-4, 2.1e-4, 2.5e-4], "log", ["0.000202", "0.00025"]),
        ("interval(0,1)", [0.001, 0.5], "log", ["0.001", "0.5"]),  # it spans much
        ("1e-3,3e-3", [0.001, 0.003], "linear", ["0.001", "0.003"]),
        ("1e-3,3e-3", [0.001, 0.001], "linear", None),
    ],
)
def test_a_parameter_is_drawn_on_the_scale_on_which_it_was_sought(word, values, scale, below):
    sweep = sought("optimizer.lr", word, values)
    plot = plots.against(sweep, sweep.trials)
    if below is None:
        assert plot is None
        return
    axis = plot.axes[0]
    assert axis.get_xscale() == scale
    assert [label.get_text() for label in axis.get_xticklabels()] == below


def test_plots_say_percent_where_tables_do_and_name_torch_first():
    for name, said in (("validation.accuracy", "50 %"), ("validation.loss", "0.5"), ("parameters", "0.5")):
        sweep = State("u", [], {}, "x", ["backend"], [Objective.named(name, Classification())], 2)
        for number, backend in enumerate(("tf", "torch")):
            sweep.trials.append(Trial(number, {"backend": backend}, [Job(str(number), state="done")], [[0.1 + number]]))
        axes = plots.against(sweep, sweep.trials).axes[0]
        axes.set_yticks([0.5])
        assert axes.get_yticklabels()[0].get_text() == said
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["torch", "tf"]


def test_a_page_has_short_numbers():
    axis = {"optimizer.lr": "0.0016051911333587634"}
    sweep = State("u", [], {}, "x", list(axis), [Objective.named("validation.loss", Classification())], 1)
    sweep.trials = [Trial(0, axis, [Job("0", state="done")], [[0.5]])]
    assert "<td>0.001605</td>" in page.trials(sweep)
    assert "0.0016051911333587634" in page.as_csv(sweep, {}, Path("s"))
