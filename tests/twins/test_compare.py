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


def test_float32_is_held_to_the_floor_of_one_framework() -> None:
    wide = arrays()
    narrow = {name: value * (1 + 1e-5) for name, value in wide.items()}
    limit = float32_limit(narrow, wide)
    assert limit("logits") == pytest.approx(4e-5, rel=1e-4)
    assert float32_limit(wide, wide)("logits") == 6e-7
    assert float32_limit(wide, wide)("gradient.head") == 5e-7
