"""Features and layers by themselves: against the numpy references, against the stock layers, and twin against twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.backend import Backends
from tests.support.made import once
from tests.twins import cases, tolerances
from tests.twins.compare import distance
from tests.twins.content.audio import speech, waveform
from tests.twins.content.base import ROWS, SEED
from toolkit.features.log_mel.spec import LogMel
from toolkit.layers import spec as layers

Parts = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def folder(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "parts", lambda folder: cases.start_workers(backends, "parts", folder))


@pytest.fixture(scope="module")
def parts(folder: Path) -> Parts:
    return {backend: dict(np.load(folder / f"parts.{backend}.npz")) for backend in ("torch", "tf")}


@pytest.mark.parametrize("name", cases.feature_specs())
@pytest.mark.parametrize("kind", ["whole", "masked"])
def test_features_are_the_same_float32_numbers(name: str, kind: str, parts: Parts) -> None:
    torch, tf = parts["torch"][f"{name}.{kind}"], parts["tf"][f"{name}.{kind}"]
    assert torch.dtype == tf.dtype == np.float32
    assert np.array_equal(parts["torch"][f"{name}.{kind}.lengths"], parts["tf"][f"{name}.{kind}.lengths"])
    assert np.array_equal(torch == 0, tf == 0)  # the masks
    assert (torch != tf).mean() < tolerances.FEATURES_UNEQUAL
    assert np.allclose(torch, tf, rtol=1.2e-7, atol=0)  # one unit in the last place


@pytest.mark.parametrize("name", cases.feature_specs())
@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_features_are_those_of_the_reference(name: str, backend: str, parts: Parts, folder: Path) -> None:
    spec, batch = cases.feature_specs()[name], speech(LogMel(), ROWS, True)
    values, lengths = parts[backend][f"{name}.whole"], parts[backend][f"{name}.whole.lengths"]
    for row, length in enumerate(lengths):
        expected = spec.reference(waveform(row), spec.load(folder))
        assert length == len(expected) == spec.frames(int(batch["waveform_lengths"][row]))
        assert distance("", values[row, :length], expected) < tolerances.FLOAT32_FORWARD
        assert (values[row, :length] != expected).mean() < tolerances.FEATURES_UNEQUAL
        assert not values[row, length:].any()


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_masked_features_are_zero_where_the_draw_says(backend: str, parts: Parts) -> None:
    batch = speech(LogMel(), ROWS, True)
    masked, whole = parts[backend]["utterance.masked"], parts[backend]["utterance.whole"]
    expected = whole.copy()
    for row in range(len(whole)):
        for first, width in batch["time_masks"][row]:
            expected[row, first : first + width] = 0
        for first, width in batch["frequency_masks"][row]:
            expected[row, :, first : first + width] = 0
    assert (expected != whole).any()
    assert np.array_equal(masked, expected)


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("step", cases.STEPS)
@pytest.mark.parametrize("path, rate, shape", [entry[:3] for entry in cases.DROPOUTS if not entry[3]])
def test_dropout_is_the_hash(
    backend: str, step: int, path: str, rate: float, shape: tuple[int, ...], parts: Parts
) -> None:
    key = layers.dropout_key(layers.dropout_base(SEED, path), step)
    expected = layers.dropout_mask(int(np.prod(shape)), key, rate).reshape(shape)
    name = f"dropout.hash.{path}.{step}"
    assert np.array_equal(parts[backend][name], expected)
    assert np.array_equal(parts[backend][f"{name}.again"], expected)
    assert (parts[backend][f"{name}.evaluating"] == 1).all()


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_native_dropout_repeats_itself_at_the_same_step_only(backend: str, parts: Parts) -> None:
    masks = [parts[backend][f"dropout.native.own.{step}"] for step in cases.STEPS]
    again = [parts[backend][f"dropout.native.own.{step}.again"] for step in cases.STEPS]
    assert all(np.array_equal(a, b) for a, b in zip(masks, again, strict=True))
    assert not np.array_equal(masks[0], masks[1])
    assert all(abs(mask.mean() - 0.5) < 0.01 for mask in masks)


@pytest.mark.parametrize("layer", ["norm", "lstm"])
def test_own_layers_compute_what_the_stock_ones_do(layer: str, parts: Parts) -> None:
    found = [name for name in parts["torch"] if name.startswith(f"{layer}.own")]
    assert found
    for name in found:
        assert distance(name, parts["torch"][name], parts["torch"][name.replace("own", "stock")]) < tolerances.FLOAT64


def test_torch_normalises_pictures_without_losing_digits(parts: Parts) -> None:
    """Its stock kernel, where the channels are last, is 1e-5 off and more."""
    found = [n for n in parts["torch"] if n.startswith(("pictures", "gradient.")) and n.endswith(".own")]
    assert len(found) > 5
    for name in found:
        own, stock = parts["torch"][name], parts["torch"][name.removesuffix("own") + "stock"]
        limit = tolerances.FLOAT32_GRADIENT if name.startswith("gradient.") else tolerances.FLOAT32_FORWARD
        assert own.dtype == np.float32 and distance(name, own, stock) < limit, name


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_an_input_beyond_the_table_of_positions_is_refused(backend: str, parts: Parts) -> None:
    assert parts[backend]["too_long"]


def test_dropout_masks_are_fair_and_do_not_repeat() -> None:
    """Counts and correlations in standard deviations of independent draws; five of them are met once in 1.7 million."""
    rate, elements = 0.1, 100_000
    bases = [layers.dropout_base(seed, path) for seed in (0, 1) for path in "ab"]
    keys = [layers.dropout_key(base, step) for base in bases for step in (0, 1)]
    kept = [(layers.dropout_mask(elements, key, rate) - (1 - rate)) / (rate * (1 - rate)) ** 0.5 for key in keys]
    for number, mask in enumerate(kept):
        assert abs(mask.sum()) < 5 * elements**0.5
        for other in kept[:number]:
            assert abs(mask @ other) < 5 * elements**0.5
        for lag in (1, 2, 96, 384):
            assert abs(mask[lag:] @ mask[:-lag]) < 5 * elements**0.5


def test_positions_are_sinusoids_of_query_minus_key() -> None:
    table = layers.positions(5, 6)
    assert table.shape == (10, 6) and table.dtype == np.float32
    for row, position in enumerate(range(4, -6, -1)):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert table[row, 2 * pair : 2 * pair + 2] == pytest.approx([np.sin(angle), np.cos(angle)], abs=1e-7)
    assert np.array_equal(layers.positions(9, 6)[4:14], table)


@pytest.mark.parametrize("length", range(40))
def test_subsampled_length_is_that_of_two_convolutions(length: int) -> None:
    def convolved(n: int) -> int:
        return max(0, (n - 3) // 2 + 1)

    assert layers.subsampled(length) == convolved(convolved(length))
    assert layers.subsampled(np.array([length]))[0] == layers.subsampled(length)
