"""Initial weights: keyed by seed and name, by the distribution that the spec states; and the models' sizes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.twins.cases import Case
from tests.twins.components import specs
from toolkit.config.spec import problems
from toolkit.layers import spec as layers
from toolkit.layers.parameters import Blocks, Constant, Normal, Parameter, Uniform, decays, glorot, he, initial
from toolkit.models.conformer_ctc.spec import ConformerCTC


def test_a_name_is_given_the_same_whatever_stands_beside_it() -> None:
    one = {"a.weight": Parameter((3, 4), Uniform(0.5))}
    two = {"b.weight": Parameter((9,), Normal(1.0)), **one}
    assert np.array_equal(initial(one, 1)["a.weight"], initial(two, 1)["a.weight"])
    assert not np.array_equal(initial(one, 1)["a.weight"], initial(one, 2)["a.weight"])
    same = {name: Parameter((50,), Normal(1.0)) for name in ("a", "b")}
    drawn = initial(same, 0)
    assert not np.array_equal(drawn["a"], drawn["b"])


def test_the_first_numbers_never_change() -> None:
    """A checkpoint's seed must mean the same weights with every later release."""
    drawn = initial({"head.weight": Parameter((2, 2), Uniform(1.0))}, 7)["head.weight"]
    assert drawn.dtype == np.float32
    assert drawn.ravel().tolist() == pytest.approx([0.476576, 0.112738, 0.4994151, -0.5818182], abs=1e-7)


@pytest.mark.parametrize("distribution, std", [(Uniform(0.3), 0.3 / 3**0.5), (Normal(0.02), 0.02)])
def test_distributions_have_their_width(distribution: Uniform | Normal, std: float) -> None:
    drawn = initial({"x": Parameter((200, 500), distribution)}, 3)["x"]
    assert drawn.std() == pytest.approx(std, rel=0.01)
    assert abs(drawn.mean()) < 0.02 * std
    if isinstance(distribution, Uniform):
        assert np.abs(drawn).max() <= 0.3


def test_constants_and_blocks() -> None:
    made = initial({"c": Parameter((3,), Constant(2.0)), "b": Parameter((6,), Blocks((0.0, 1.0, 0.5)))}, 0)
    assert made["c"].tolist() == [2, 2, 2]
    assert made["b"].tolist() == [0, 0, 1, 1, 0.5, 0.5]
    assert glorot(2, 4) == Uniform(1.0) and he(6) == Uniform(1.0)


def test_matrices_decay_and_vectors_do_not() -> None:
    shapes = {name: p.shape for name, p in ConformerCTC().parameters(80, 30).items()}
    decaying = {name for name, shape in shapes.items() if decays(shape)}
    assert {"head.weight", "subsample.conv1.weight", "blocks.0.convolution.depthwise.weight"} <= decaying
    assert not {name for name in decaying if name.endswith(".bias") or ".norm." in name or ".batch_norm." in name}


@pytest.mark.parametrize("model", specs("models"))
def test_every_model_is_possible_and_draws_finite_weights(model: str) -> None:
    spec = specs("models")[model]()
    assert not list(problems(spec))
    for name, values in initial(spec.parameters(*Case(model, "").sizes()), 0).items():
        assert np.isfinite(values).all(), name


@pytest.mark.parametrize(
    "size, published, decoder",
    [
        ({"dim": 144, "feed_forward": 576, "subsampling_channels": 144}, 10.3e6, 320),
        ({"dim": 256, "feed_forward": 1024, "subsampling_channels": 256}, 30.7e6, 640),
    ],
)
def test_conformer_sizes_are_those_of_the_paper(size: dict[str, int], published: float, decoder: int) -> None:
    """Table 1 of Gulati et al. 2020 counts a decoder of one LSTM as well, here with embedding and joint net."""
    spec = ConformerCTC(layers=16, heads=4, kernel=31, **size)
    trained = [p for p in spec.parameters(80, 1024).values() if p.trainable]
    lstm = sum(int(np.prod(p.shape)) for p in layers.lstm(decoder, decoder).values())
    embedding_and_joint = 1024 * decoder + decoder * (decoder + size["dim"])
    total = sum(int(np.prod(p.shape)) for p in trained) + lstm + embedding_and_joint
    assert total == pytest.approx(published, rel=0.05)


def test_tiny_conformer_has_a_million_parameters() -> None:
    count = sum(int(np.prod(p.shape)) for p in ConformerCTC().parameters(80, 30).values())
    assert count == pytest.approx(1.0e6, rel=0.05)


@pytest.mark.parametrize(
    "spec, field",
    [
        (ConformerCTC(dim=97), "dim"),
        (ConformerCTC(dim=96, heads=5), "dim"),
        (ConformerCTC(kernel=16), "kernel"),
        (ConformerCTC(dropout=1.0), "dropout"),
    ],
)
def test_impossible_models_are_named(spec: ConformerCTC, field: str) -> None:
    assert field in dict(problems(spec))


def test_weights_of_another_model_are_refused_by_name() -> None:
    shapes = {"a.weight": (2, 3), "a.bias": (2,)}
    right = {name: np.zeros(shape) for name, shape in shapes.items()}
    layers.match(right, shapes)
    with pytest.raises(ValueError, match=r"lacks a\.bias"):
        layers.match({"a.weight": np.zeros((2, 3))}, shapes)
    with pytest.raises(ValueError, match="has b, which the model does not have"):
        layers.match(right | {"b": np.zeros(1)}, shapes)
    with pytest.raises(ValueError, match=r"a\.weight has shape \(3, 2\), expected \(2, 3\)"):
        layers.match(right | {"a.weight": np.zeros((3, 2))}, shapes)
    with pytest.raises(ValueError, match=r"a\.bias has shape \(2, 1\)"):
        layers.match(right | {"a.bias": np.zeros((2, 1))}, shapes)
    with pytest.raises(ValueError, match="and 2 more"):
        layers.match(right | {name: np.zeros(1) for name in "tuvwxyz"}, shapes)
