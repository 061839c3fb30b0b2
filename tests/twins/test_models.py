"""Every model there is, in both frameworks: the same weights and the same batch give the same numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.support.backend import Backends
from tests.support.made import once
from tests.twins import cases, components, mutants
from tests.twins.cases import Case
from tests.twins.compare import first_difference, float32_limit, float64_limit
from tests.twins.content.base import ALONE, Arrays

MODELS = components.specs("models")
EVERY = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(scope="module")
def folder(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the results of all models: two processes in all, because starting one takes longer than what it computes."""
    every = [case for model in MODELS for case in cases.cases_of(model)] + mutants.cases()
    return once(tmp_path_factory, "models", lambda folder: cases.run(backends, every, folder))


def twins(folder: Path, model: str, kind: str) -> tuple[Arrays, Arrays]:
    return cases.result(folder, "torch", f"{model}.{kind}"), cases.result(folder, "tf", f"{model}.{kind}")


@EVERY
@pytest.mark.parametrize("kind", ["wide", "dropout", "together", "reference"])
def test_twins_mean_the_same(model: str, kind: str, folder: Path) -> None:
    """In float64: every intermediate, the loss, every gradient and the running statistics, with and without dropout."""
    assert first_difference(*twins(folder, model, kind), float64_limit) is None


@EVERY
def test_twins_agree_in_float32(model: str, folder: Path) -> None:
    torch, tf = twins(folder, model, "narrow")
    torch_wide, tf_wide = twins(folder, model, "reference")
    limit = float32_limit((torch, torch_wide), (tf, tf_wide))
    assert first_difference(torch, tf, limit) is None


@pytest.mark.parametrize("case", [case for model in MODELS for case in cases.others(model)], ids=lambda case: case.name)
def test_twins_mean_the_same_with_every_option(case: Case, folder: Path) -> None:
    assert first_difference(*twins(folder, case.model, case.kind), float64_limit) is None


@EVERY
def test_every_gradient_is_there_and_dropout_drops(model: str, folder: Path) -> None:
    case = Case(model, "wide")
    wide = cases.result(folder, "torch", case.name)
    for name, parameter in case.parameters().items():
        assert not parameter.trainable or wide[f"gradient.{name}"].any(), name
    dropped = first_difference(wide, cases.result(folder, "torch", f"{model}.dropout"), float64_limit)
    assert bool(dropped) == any(map(cases.has_dropout, dataclasses.fields(MODELS[model])))


@EVERY
@pytest.mark.parametrize("backend", cases.BACKENDS)
def test_padding_reaches_nothing(model: str, backend: str, folder: Path) -> None:
    """Neither the loss, nor a gradient, nor the running statistics, nor another example."""
    together = cases.result(folder, backend, f"{model}.together")
    for row in ALONE:
        alone = cases.result(folder, backend, f"{model}.alone{row}")
        mine = {name: _within(value[row], alone[name][0].shape) for name, value in together.items()}
        assert first_difference(mine, {name: value[0] for name, value in alone.items()}, float64_limit) is None, row
    if any(case.longer for case in cases.cases_of(model)):
        wide, longer = (_whole(cases.result(folder, backend, f"{model}.{kind}")) for kind in ("wide", "longer"))
        assert first_difference(wide, longer, float64_limit) is None


def _within(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What an example got, without the padding behind it."""
    return value[tuple(slice(size) for size in shape)]


def _whole(arrays: Arrays) -> Arrays:
    """What has no axis that padding makes longer."""
    return {name: value for name, value in arrays.items() if name.startswith(("loss", "gradient.", "after.", "length"))}


@EVERY
def test_a_parameter_that_is_off_is_found_and_named(model: str, folder: Path) -> None:
    torch, tf = twins(folder, model, "perturbed")
    case = Case(model, "perturbed")
    part, _ = cases.perturbed(torch, case.parameters())
    found = first_difference(torch, tf, float64_limit)
    assert found is not None and found.startswith(f"{part}: "), found


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_a_mutant_is_found(name: str, folder: Path) -> None:
    """In float64 always; in float32 from the size on that ``tolerances`` derives."""
    mutant = mutants.MUTANTS[name]
    torch = cases.result(folder, "torch", f"{mutant.model}.narrow")
    torch_wide, right_wide = twins(folder, mutant.model, "reference")
    wrong, wrong_wide = (cases.result(folder, "tf", case.name) for case in mutants.cases_of(name))
    assert str(first_difference(torch_wide, wrong_wide, float64_limit)).startswith(mutant.place)

    both = float32_limit((torch, torch_wide), (wrong, wrong_wide))
    found = first_difference(torch, wrong, both)
    assert (found is not None) == mutant.in_float32, found
    narrow_only = float32_limit((torch, torch_wide), (wrong, right_wide))
    found = first_difference(torch, wrong, narrow_only)
    assert (found is not None) == mutant.in_float32, found
