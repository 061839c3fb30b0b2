"""Every model under every task that it fits: ``predict`` of the inputs, and the search, as an engine runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.backend import Backends
from tests.support.made import once
from tests.twins import cases, components
from tests.twins.compare import first_difference, float32_limit, float64_limit
from tests.twins.content.base import columns, random

PAIRS = [(model, task) for model, kind in components.specs("models").items() for task in components.tasks_of(kind)]
EVERY = pytest.mark.parametrize("model, task", PAIRS)


@pytest.fixture(scope="module")
def folder(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Path:
    every = [case for model in components.specs("models") for case in cases.answers_of(model)]
    return once(tmp_path_factory, "answers", lambda folder: cases.run(backends, every, folder))


@EVERY
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", cases.BACKENDS)
def test_predict_gives_the_outputs_of_evaluate(model: str, task: str, dtype: str, backend: str, folder: Path) -> None:
    """Bit by bit: the worker fails where it does not (:func:`tests.twins.cases.answers`)."""
    found = cases.result(folder, backend, f"{model}.answers.{task}.{dtype}")
    predicted = {name for name in found if name.startswith("predict.")}
    assert bool(predicted) != ("steps" in found)
    assert ("steps" in found) == components.specs("tasks")[task].autoregressive


@EVERY
def test_twins_give_the_same_answers(model: str, task: str, folder: Path) -> None:
    wide, narrow = (
        [cases.result(folder, backend, f"{model}.answers.{task}.{dtype}") for backend in cases.BACKENDS]
        for dtype in ("float64", "float32")
    )
    assert first_difference(*wide, float64_limit) is None
    limit = float32_limit((narrow[0], wide[0]), (narrow[1], wide[1]))
    assert first_difference(*narrow, limit) is None


def test_an_output_that_differs_or_is_missing_is_found() -> None:
    task = next(kind() for kind in components.specs("tasks").values() if not kind.autoregressive)
    figures = {name: random(0).random(3) for name in task.measured}
    outputs = {"scores": random(1).random((3, 4)), "lengths": random(2).integers(0, 9, 3)}
    found = cases.answers(task, figures | outputs, outputs)
    assert set(found) == {*figures, *outputs, "predict.scores", "predict.lengths"}
    for wrong in (
        {"scores": outputs["scores"]},
        outputs | {"more": outputs["lengths"]},
        outputs | {"scores": outputs["scores"] * (1 + 1e-15)},
        outputs | {"lengths": outputs["lengths"].astype("int32")},
    ):
        with pytest.raises(AssertionError):
            cases.answers(task, figures | outputs, wrong)
    with pytest.raises(AssertionError):
        cases.answers(task, outputs, outputs)


def test_every_component_has_cases() -> None:
    """A task, features or a column that no model reaches would be computed by nobody."""
    every = [
        case for model in components.specs("models") for case in (*cases.cases_of(model), *cases.answers_of(model))
    ]
    for group in ("models", "tasks", "features"):
        assert {case.folder(group) for case in every} - {None} == set(components.specs(group))
    assert {column.kind for case in every for column in case.columns()} == set(columns())
