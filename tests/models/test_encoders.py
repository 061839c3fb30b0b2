"""Encoders without their heads: another head stands on the same encoder and finds the same weights by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.backend import BACKENDS, ROOT, Backends
from tests.workers import encoders


@pytest.fixture(scope="module", params=BACKENDS)
def report(request: pytest.FixtureRequest, backends: Backends) -> dict[str, Any]:
    done = backends[request.param].run("tests.workers.encoders", request.param, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_encoder_computes_what_the_head_sees(report: dict[str, Any]) -> None:
    for spec, _ in encoders.models():
        assert report[type(spec).__name__]["same logits"], spec


def test_another_head_leaves_the_names_of_the_encoder(report: dict[str, Any]) -> None:
    for spec, encoder in encoders.models():
        names = list(encoder.encoder_parameters(encoders.INPUTS))
        found = report[type(spec).__name__]
        assert sorted(found["names"]) == sorted([*names, "classes.weight", "classes.bias"])
        assert sorted(spec.parameters(encoders.INPUTS, encoders.OUTPUTS)) == sorted(
            [*names, "head.weight", "head.bias"]
        )
        assert found["shape"] == [2, encoders.CLASSES]


def test_names_that_would_clash_are_refused(report: dict[str, Any]) -> None:
    for spec, _ in encoders.models():
        assert "already has blocks, " in report[type(spec).__name__]["two encoders"]
    assert "of its own: " in report["own parameters"]


def test_there_is_an_encoder_for_every_folder() -> None:
    folders = {path.parent.name for path in ROOT.glob("toolkit/encoders/*/spec.py")}
    assert {type(encoder).__module__.split(".")[-2] for _, encoder in encoders.models()} == folders
