"""The comparison itself fails where it must."""

from __future__ import annotations

import numpy as np
import pytest

from tests.twins.compare import first_difference, float32_limit, float64_limit


def arrays() -> dict[str, np.ndarray]:
    random = np.random.Generator(np.random.Philox(key=3))
    made = {name: random.standard_normal((4, 5)) for name in ("features", "blocks.0", "logits", "gradient.head")}
    return made | {"lengths": np.array([4, 2])}


def test_equal_arrays_pass() -> None:
    assert first_difference(arrays(), arrays(), float64_limit) is None


@pytest.mark.parametrize("name", ["features", "blocks.0", "logits", "gradient.head"])
def test_the_first_that_differs_is_named(name: str) -> None:
    other = arrays()
    for later in list(other)[list(other).index(name) :]:
        other[later] = other[later] * (1 + 3e-8)
    found = first_difference(arrays(), other, float64_limit)
    assert found and found.startswith(f"{name}: distance 3e-08")


def test_a_difference_within_the_limit_passes() -> None:
    other = {name: a * (1 + 3e-9) if a.dtype.kind == "f" else a for name, a in arrays().items()}
    assert first_difference(arrays(), other, float64_limit) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nan_fails_even_on_both_sides(value: float) -> None:
    left, right = arrays(), arrays()
    left["blocks.0"][1, 2] = right["blocks.0"][1, 2] = value
    assert str(first_difference(left, right, float64_limit)).startswith("blocks.0: distance inf")


def test_integers_must_be_equal() -> None:
    other = arrays()
    other["lengths"][1] += 1
    assert str(first_difference(arrays(), other, lambda name: 1.0)).startswith("lengths: ")


def test_missing_arrays_and_other_shapes_and_types_are_named() -> None:
    other = arrays()
    missing = other.pop("logits")
    assert first_difference(arrays(), other, float64_limit) == "logits: missing on the right"
    assert first_difference(other, arrays(), float64_limit) == "logits: missing on the left"
    assert str(first_difference(arrays(), other | {"logits": missing[:3]}, float64_limit)).startswith("logits: ")
    narrow = missing.astype(np.float32)
    assert str(first_difference(arrays(), other | {"logits": narrow}, lambda name: 1.0)).startswith("logits: float64")


def off(arrays: dict[str, np.ndarray], **relative: float) -> dict[str, np.ndarray]:
    """The floating-point arrays, each multiplied by 1 + its figure or that of ``every``."""
    every = relative.pop("every", 0.0)
    names = {name.replace(".", "_"): name for name in arrays}
    figures = dict.fromkeys(arrays, every) | {names[name]: figure for name, figure in relative.items()}
    return {name: a * (1 + figures[name]) if a.dtype.kind == "f" else a for name, a in arrays.items()}


def test_float32_is_held_to_the_rounding_of_both_frameworks_over_the_whole_model() -> None:
    wide = arrays()
    torch, tf = off(wide, blocks_0=1e-5, gradient_head=2e-5), off(wide, logits=4e-5, gradient_head=8e-5)
    for limit in (float32_limit((torch, wide), (tf, wide)), float32_limit((tf, wide), (torch, wide))):
        assert [limit(name) for name in ("features", "logits", "loss")] == pytest.approx([8e-5] * 3, rel=1e-4)
        assert limit("gradient.head") == pytest.approx(1.6e-4, rel=1e-4)
        assert first_difference(torch, tf, limit) is None
    least = float32_limit((wide, wide), (tf, wide))
    assert least("logits") == least("loss") == 6e-7 and least("gradient.head") == 5e-7


@pytest.mark.parametrize("ratio, passes", [(1, True), (13, True), (17, False), (1e6, False)])
def test_a_framework_that_strays_much_further_than_the_other_does_not_raise_its_own_limit(
    ratio: float, passes: bool
) -> None:
    wide = arrays()
    torch, tf = off(wide, every=-1e-6), off(wide, every=ratio * 1e-6)
    for left, right in ((torch, tf), (tf, torch)):
        found = first_difference(left, right, float32_limit((left, wide), (right, wide)))
        assert (found is None) == passes, found


def test_a_nan_does_not_lift_the_limit_of_float32() -> None:
    wide, narrow = arrays(), arrays()
    narrow["logits"][0, 0] = np.nan
    found = first_difference(narrow, narrow, float32_limit((narrow, wide), (narrow, wide)))
    assert str(found).startswith("logits: distance inf")
