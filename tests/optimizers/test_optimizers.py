"""The optimizers: torch's arithmetic in TensorFlow, and one state for both."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.backend import BACKENDS, Backends
from tests.workers.optimizers import cases
from tests.workers.optimizers.cases import SHAPES, SPECS, STEPS, Arrays
from toolkit.config.spec import problems
from toolkit.optimizers.adamw.spec import AdamW
from toolkit.optimizers.sgd.spec import SGD
from toolkit.optimizers.state import check_state


@pytest.fixture(scope="module")
def runs(backends: Backends) -> dict[str, Arrays]:
    """Weights and states by "framework job".

    Each framework over all steps ("whole"), half-way ("half"), and over the second half from what each left half-way
    ("tf torch on": TensorFlow resumes torch's training).
    """
    found: dict[str, Arrays] = {}
    halves: Arrays = {}
    for _ in range(2):  # from the start; then from the halves that both left
        for backend, arrays in backends.compute("optimizers", "trainings", cases.given() | halves).items():
            for key, value in arrays.items():
                job, rest = key.split("/", 1)
                found.setdefault(f"{backend} {job}", {})[rest] = value
        halves = {f"{name}/half/{key}": value for name in BACKENDS for key, value in found[f"{name} half"].items()}
    return found


def computed(backends: Backends, function: str, **given: np.ndarray) -> Arrays:
    """Return the answer of a function of the TensorFlow worker."""
    return backends.compute("optimizers", function, given, ["tf"])["tf"]


def kinds(found: Arrays, what: str, kind: str) -> list[str]:
    keys = [k for k in found if f"/{kind}/" in k and f"/{what}/" in k]
    assert len(keys) >= len(SPECS) * 2 * len(SHAPES) or what != "weights"
    return keys


# Largest difference of a weight after 200 steps, in units of the larger of 1 and the weight: for float64 that of equal
# semantics, for float32 the parity ledger's figures. A NaN is no agreement.
LIMITS = {("float64", "adamw"): 1e-8, ("float64", "sgd"): 1e-8, ("float32", "adamw"): 2.4e-7, ("float32", "sgd"): 5e-7}


def hold(found: np.ndarray, expected: np.ndarray, key: str) -> None:
    label, kind, *_ = key.split("/")
    limit = LIMITS[kind, "adamw" if label.startswith("adamw") else "sgd"]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=limit, atol=limit, err_msg=key)


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_twins_agree_after_200_steps(runs, kind: str) -> None:
    for key in kinds(runs["torch whole"], "weights", kind):
        hold(runs["tf whole"][key], runs["torch whole"][key], key)


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_torch_twin_is_the_stock_optimizer(runs, kind: str) -> None:
    for key in kinds(runs["torch stock"], "weights", kind):
        hold(runs["torch whole"][key], runs["torch stock"][key], key)


def true_moment(arrays, key: str):
    scale = arrays[f"{key.rpartition('/')[0]}/exp_avg_sq_scale"] if "/exp_avg_sq" in key else 1.0
    return arrays[key] / scale


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_moments_agree(runs, kind: str) -> None:
    """Divided by the factor that the state gives for them."""
    for key in kinds(runs["torch whole"], "state", kind):
        expected, found = true_moment(runs["torch whole"], key), true_moment(runs["tf whole"], key)
        assert found.shape == expected.shape
        # gradients reach 3, and a buffer ten times that: what cancels leaves the rounding of what was larger
        limit = 1e-8 if kind == "float64" else 2e-6
        atol = 0 if "/exp_avg_sq." in key else limit  # a sum of squares cancels nothing
        np.testing.assert_allclose(found, expected, rtol=limit, atol=atol, err_msg=key)


@pytest.mark.parametrize("name", ["tf torch on", "torch tf on", "tf tf on", "torch torch on"])
def test_state_passes_bit_for_bit(runs, name: str) -> None:
    """But for second moments in float32, whose factor is another on the other backend: those within a rounding."""
    here, there = name.split()[:2]
    source = runs[f"{there} half"]
    keys = [k for k in source if "/state/" in k]
    assert len(keys) == 4 * (2 * (2 * 4 + 2) + (0 + 1) + 2 * (4 + 1))
    for key in keys:
        given = key.replace("/state/", "/given/")
        found = runs[name][given]
        assert found.dtype == source[key].dtype
        if here != there and "/float32/" in key and "/exp_avg_sq" in key:
            np.testing.assert_allclose(true_moment(runs[name], given), true_moment(source, key), rtol=3e-7, err_msg=key)
        else:
            assert np.array_equal(found, source[key]), key
    assert runs[name]["sgd/float32/0.0/given/step"].tolist() == [STEPS // 2]


@pytest.mark.parametrize("name", ["torch torch on", "tf tf on"])
def test_resuming_changes_nothing(runs, name: str) -> None:
    whole = runs[f"{name.split()[0]} whole"]
    for key in [k for k in whole if "/weights/" in k or "/state/" in k]:
        assert np.array_equal(runs[name][key], whole[key]), key


@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("name", ["tf torch on", "torch tf on"])
def test_going_on_in_the_other_framework(runs, name: str, kind: str) -> None:
    for key in kinds(runs["torch whole"], "weights", kind):
        hold(runs[name][key], runs["torch whole"][key], key)


def test_state_before_the_first_step_is_zero(runs) -> None:
    for name in ("torch whole", "tf whole"):
        given = {k: v for k, v in runs[name].items() if "/given/" in k and not k.endswith("_scale")}
        assert given and not any(v.any() for v in given.values())


def test_only_matrices_and_kernels_decay(backends: Backends) -> None:
    """Without a gradient AdamW only decays, and what does not decay stays."""
    after = computed(backends, "decay_alone", w=np.ones((2, 2), np.float32), b=np.ones(2, np.float32))
    assert (after["w"] == 0.75).all() and (after["b"] == 1).all()


def test_replicas_and_sparse_gradients_step_like_one_dense_gradient(backends: Backends) -> None:
    """Two replicas sum their gradients; repeated embedding rows are summed before they are squared."""
    start = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    found = computed(backends, "extras", start=start, gradient=np.linspace(-2, 3, 12, dtype=np.float32).reshape(4, 3))
    assert len(found) == 9
    for name, value in found.items():
        plain = found[f"{name.partition('/')[0]}/plain"]
        assert (plain != start).any()
        np.testing.assert_allclose(value, np.broadcast_to(plain, value.shape), rtol=1e-6, err_msg=name)
    assert found["0/replicas"].shape == (2, *start.shape)


def test_keras_fit_takes_an_optimizer(backends: Backends) -> None:
    given = {"inputs": np.ones((4, 3), np.float32), "targets": np.ones((4, 2), np.float32)}
    found = computed(backends, "fit", **given)
    after = cases.part(found, "after/")
    assert len(after) == 2
    assert all((value != found[f"before/{name}"]).any() for name, value in after.items())


def test_specs_state_their_limits() -> None:
    assert not list(problems(AdamW())) and not list(problems(SGD()))
    assert [field for field, _ in problems(SGD(momentum=0.0, nesterov=True))] == ["nesterov"]
    assert [field for field, _ in problems(AdamW(lr=0.0, betas=(0.9, 1.0)))] == ["lr", "betas"]


def test_state_that_does_not_fit_is_named() -> None:
    shapes = {"a": (2,), "b": (3, 1)}
    good = {f"{m}.{n}": np.zeros(s) for m in AdamW.moments for n, s in shapes.items()}
    good |= {"step": np.zeros(1, np.int64), "exp_avg_sq_scale": np.ones(1)}
    check_state(good, shapes, AdamW.moments)
    bad = {k: v for k, v in good.items() if k != "exp_avg.a"} | {"exp_avg_sq.b": np.zeros(3), "exp_avg.c": np.zeros(1)}
    with pytest.raises(ValueError) as caught:
        check_state(bad, shapes, AdamW.moments)
    message = str(caught.value)
    for part in ("lacks exp_avg.a", "has exp_avg.c", "exp_avg_sq.b: found shape (3,), expected (3, 1)"):
        assert part in message
