"""The Transformer: step by step as in one go, beside PyTorch's own layers, its positions, sizes and errors.

That the twins are equal, with each option, and that padding reaches nothing is tested in ``tests/twins``.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

import toolkit
from tests.support.backend import Backends
from tests.twins.compare import distance
from tests.workers.transformer.cases import SPECS, STEPS, WIDTH, drawn, sources, walk
from toolkit.config.spec import problems
from toolkit.errors import ConfigError
from toolkit.models.transformer.spec import Transformer

ROOT = Path(toolkit.__file__).parents[1]


@pytest.fixture(scope="module")
def found(backends: Backends) -> dict[str, dict[str, np.ndarray]]:
    return backends.compute("transformer", "compute", {})


def near(a: np.ndarray, b: np.ndarray, limit: float = 1e-12) -> bool:
    return a.shape == b.shape and distance("", a, b) <= limit


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("name", SPECS)
def test_a_step_gives_what_the_whole_gives(found, backend, name):
    """Whatever rows the hypotheses came from, and beside sources of other lengths."""
    for step in range(STEPS):
        assert near(found[backend][f"{name}/step/{step}"], found[backend][f"{name}/whole/{step}"]), step


@pytest.mark.parametrize("name", SPECS)
def test_steps_are_equal_in_both_frameworks(found, name):
    for step in range(STEPS):
        assert near(found["torch"][f"{name}/step/{step}"], found["tf"][f"{name}/step/{step}"]), step


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("name", SPECS)
def test_bfloat16_is_near(found, backend, name):
    """Eight bits of a value: 4e-3 in each of some ten sums."""
    arrays = found[backend]
    assert near(arrays[f"{name}/bfloat16/step"], arrays[f"{name}/whole/0"][::WIDTH], 0.05)
    assert near(arrays[f"{name}/bfloat16/step"], arrays[f"{name}/bfloat16/whole"], 0.05)


@pytest.mark.parametrize("name", SPECS)
def test_beside_the_layers_that_pytorch_has(found, name):
    assert near(found["torch"][f"{name}/own"], found["torch"][f"{name}/stock"])


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("name", SPECS)
def test_embeddings_are_scaled_and_know_their_place(found, backend, name):
    """Section 3.5 of the paper, word for word."""
    spec, given = SPECS[name], drawn(SPECS[name])
    shared = name == "shared"
    *_, (_, _, so_far) = walk()
    for kind, tokens in (("source", sources()), ("target", so_far)):
        matrix = given["embedding.weight" if shared else f"{kind}_embedding.weight"].astype(np.float64)
        expected = matrix[tokens] * math.sqrt(spec.dim)
        for place, i in itertools.product(range(tokens.shape[1]), range(spec.dim // 2)):
            angle = place / 10000 ** (2 * i / spec.dim)
            expected[:, place, 2 * i] += np.float32(math.sin(angle))
            expected[:, place, 2 * i + 1] += np.float32(math.cos(angle))
        assert near(found[backend][f"{name}/{kind}"], expected)


def count(spec: Transformer, inputs: int, outputs: int) -> int:
    return sum(math.prod(parameter.shape) for parameter in spec.parameters(inputs, outputs).values())


def test_shared_and_tied_matrices_are_counted_once():
    tied, free = Transformer(), Transformer(tie_output=False)
    assert count(free, 50, 70) - count(tied, 50, 70) == 70 * 128
    assert count(tied, 70, 70) - count(Transformer(share_embeddings=True), 70, 70) == 70 * 128
    untied = Transformer(share_embeddings=True, tie_output=False)
    assert count(untied, 70, 70) - count(Transformer(share_embeddings=True), 70, 70) == 70 * 128


@pytest.mark.parametrize("size, millions", [("base", 65), ("big", 213)])
def test_sizes_are_the_papers(size, millions):
    """Table 3, with the vocabulary of 37 000 tokens of section 5.1 and one matrix for all (section 3.4)."""
    fields = yaml.safe_load((ROOT / f"conf/model/transformer_{size}.yaml").read_text())
    del fields["defaults"]
    spec = Transformer(**fields, share_embeddings=True)
    assert not list(problems(spec))
    assert count(spec, 37000, 37000) == pytest.approx(millions * 1e6, rel=0.035)


def test_the_defaults_are_tiny():
    fields = yaml.safe_load((ROOT / "conf/model/transformer_tiny.yaml").read_text())
    del fields["defaults"]
    assert Transformer(**fields) == Transformer()


def test_one_embedding_needs_one_vocabulary():
    spec = Transformer(share_embeddings=True)
    spec.parameters(50, 50)
    with pytest.raises(ConfigError, match=r"model\.share_embeddings: found 50 tokens .* 70 .*expected one vocabulary"):
        spec.parameters(50, 70)


@pytest.mark.parametrize("fields, wrong", [(dict(dim=15, heads=5), "dim"), (dict(dim=16, heads=3), "dim")])
def test_widths_must_divide(fields, wrong):
    assert [field for field, _ in problems(Transformer(**fields))] == [wrong]
