"""Image features: the draws, the numpy reference, and the twins against it and against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.backend import Backends
from tests.workers.image.cases import CASES, COPIED, EPOCH, GIVEN, NARROW, RESIZED, SEED, STATE, batch, images
from toolkit.config.spec import problems
from toolkit.data.columns.image import AUGMENTATION
from toolkit.data.random import philox, symmetric_beta, uniform
from toolkit.errors import ConfigError, DataError
from toolkit.features.image.spec import Erase, Image, sampling


@pytest.fixture(scope="module")
def twins(backends: Backends) -> dict[str, dict[str, np.ndarray]]:
    return backends.compute("image", "compute", {f"{n}/{k}": v for n in CASES for k, v in batch(n).items()})


def span(name: str) -> float:
    """From black to white after normalisation: what rounding is relative to, for it happens before the shift."""
    return float(255 * CASES[name][0].scale_shift(STATE)[0].max())


def expected(name: str) -> np.ndarray:
    """By the reference, mixed here."""
    spec, given = CASES[name][0], batch(name)
    rows = []
    for i, image in enumerate(given["images"]):
        drawn = {name: values[i] for name, values in given.items()}
        rows.append(spec.reference(image, drawn, STATE))
    pixels, share = np.stack(rows), given["shares"].astype(np.float64)[:, None, None, None]
    return share * pixels + (1 - share) * pixels[given["partners"]]


# --- twins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_pixels_are_those_of_the_reference(name: str, backend: str, twins: Any) -> None:
    wanted = expected(name)
    for kind, tolerance in (("float64", 1e-12), ("float32", 1e-6)):
        found = twins[backend][f"{name}/{kind}"]
        assert found.shape == wanted.shape == (len(wanted), *CASES[name][0].shape(*images(name).shape[1:]))
        assert np.abs(found - wanted).max() <= tolerance * span(name)


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_the_same_in_both(name: str, twins: Any) -> None:
    torch, tf = (twins[backend][f"{name}/float32"] for backend in ("torch", "tf"))
    if name in COPIED:
        assert np.array_equal(torch, tf)
    assert np.abs(torch - tf).max() <= 1e-6 * span(name)


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_a_model_in_bfloat16_gets_whole_pixels(name: str, backend: str, twins: Any) -> None:
    assert np.array_equal(twins[backend][f"{name}/bf16"], twins[backend][f"{name}/float32"])


@pytest.mark.parametrize("name", RESIZED)
def test_resizing_is_antialiased_bilinear_interpolation(name: str, twins: Any) -> None:
    scale, shift = CASES[name][0].scale_shift({})
    wanted = twins["torch"][f"{name}/interpolate"] * scale - shift
    for backend in ("torch", "tf"):
        assert np.abs(twins[backend][f"{name}/float64"] - wanted).max() < 1e-12
        assert np.abs(twins[backend][f"{name}/float32"] - wanted).max() < 1e-6 * span(name)


def test_a_picture_of_the_right_size_is_copied_exactly(twins: Any) -> None:
    given = batch("same size")
    assert given["flips"].any() and not given["flips"].all()
    turned = np.where(given["flips"][:, None, None, None], given["images"][:, :, ::-1], given["images"])
    for backend in ("torch", "tf"):
        bytes_again = twins[backend]["same size/float32"] / np.float32(1 / 255)
        assert np.array_equal(np.rint(bytes_again), turned)
        assert np.abs(bytes_again - turned).max() < 1e-4


def test_what_lies_beyond_a_picture_is_black(twins: Any) -> None:
    """One box misses its picture entirely; padded with black, a picture goes through a plain slice."""
    given = batch("far")
    boxes = given["boxes"]
    assert ((np.abs(boxes[:, 0]) >= 12) | (np.abs(boxes[:, 1]) >= 10)).any()
    framed = np.pad(given["images"], ((0, 0), (30, 30), (30, 30), (0, 0)))
    for i, (top, left, height, width) in enumerate(boxes + np.array([30, 30, 0, 0])):
        cut = framed[i, top : top + height, left : left + width]
        for backend in ("torch", "tf"):
            assert np.array_equal(twins[backend]["far/float32"][i], cut * np.float32(1 / 255))


# --- the reference ---------------------------------------------------------------------------------------------------


def test_sampling_weights_by_hand() -> None:
    # four pixels to two: triangles of half width 2 around 1 and 3, over the pixel centres 0.5 .. 3.5
    assert sampling(0, 4, False, 2, 4) == pytest.approx(np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7)
    # two to four: neighbours are mixed by distance, the edges repeat
    weights = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    assert sampling(0, 2, False, 4, 2) == pytest.approx(weights)
    assert sampling(0, 2, True, 4, 2) == pytest.approx(weights[::-1])
    # a box that begins one pixel before the picture takes black from there
    assert sampling(-1, 4, False, 2, 4) == pytest.approx(np.array([[3, 1, 0, 0], [1, 3, 3, 0]]) / 7)
    assert np.array_equal(sampling(2, 3, False, 3, 6), np.eye(6)[2:5])


def test_erased_pixels_are_zero_after_normalisation() -> None:
    spec = Image(erase=Erase(1.0), **GIVEN)
    image = np.full((10, 12, 3), 255, np.uint8)
    drawn = {name: values[0] for name, values in spec.draw_batch(10, 12, SEED, EPOCH, np.arange(1)).items()}
    top, left, height, width = drawn["erased"]
    found = spec.reference(image, drawn)
    empty = (found == 0).all(-1)
    assert empty.sum() == height * width > 0
    assert empty[top : top + height, left : left + width].all()
    assert found[~empty] == pytest.approx(np.tile((1 - np.array(spec.mean)) / np.array(spec.std), ((~empty).sum(), 1)))


def test_the_training_set_is_learned_and_read_again(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((4, 5), (30, 7), (1, 1))]
    spec = Image()
    spec.learn(iter(images), tmp_path / "features")
    state = spec.load(tmp_path / "features")
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    assert state["mean"] == pytest.approx(pixels.mean(0), rel=1e-12)
    assert state["variance"] == pytest.approx(pixels.var(0), rel=1e-9)
    drawn = {"erased": np.zeros(4, int)}
    values = np.concatenate([spec.reference(image, drawn, state).reshape(-1, 3) for image in images])
    assert np.abs(values.mean(0)).max() < 1e-9 and values.std(0) == pytest.approx(1)


def test_a_channel_without_variance_is_only_shifted(tmp_path: Path) -> None:
    spec = Image()
    spec.learn([np.full((4, 4, 1), 51, np.uint8)], tmp_path)
    scale, shift = spec.scale_shift(spec.load(tmp_path))
    assert 51 * scale - shift == pytest.approx(0, abs=1e-12) and scale == pytest.approx(1 / 255)


def test_statistics_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image\.json: cannot read the statistics .*normalize=training_set"):
        Image().load(tmp_path)
    for mean, shape in (("[0.1, 0.2]", r"\(2,\)"), ("0.1", r"\(\)"), ("[]", r"\(0,\)")):
        (tmp_path / "image.json").write_text(f'{{"mean": {mean}, "variance": [0.1]}}')
        with pytest.raises(DataError, match=rf"found statistics of shapes \[{shape}, \(1,\)\]"):
            Image().load(tmp_path)
    for spec in (Image(normalize="none"), Image(**GIVEN)):
        spec.learn([np.zeros((2, 2, 3), np.uint8)], tmp_path / "none")
        assert spec.load(tmp_path / "none") == {} and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "spec, field, words",
    [
        (Image(size=0), "size", "at least 1"),
        (Image(flip=1.5), "flip", "at most 1"),
        (Image(area=(0.5, 0.1)), "area", "expected the smaller first"),
        (Image(area=(0.0, 0.1)), "area", "more than 0"),
        (Image(erase=Erase(ratio=(3.0, 2.0))), "erase.ratio", "found 3, 2, expected"),
        (Image(normalize="given"), "mean", "a value for each channel"),
        (Image(normalize="given", mean=(0.1, 0.2), std=(1.0,)), "std", "found 1 values, expected 2"),
        (Image(mean=(0.1,), std=(1.0,)), "normalize", "set features.normalize=given"),
        (Image(normalize="given", mean=(0.1,), std=(0.0,)), "std", "more than 0"),
    ],
)
def test_impossible_values_are_named(spec: Image, field: str, words: str) -> None:
    assert words in dict(problems(spec))[field]


def test_the_defaults_are_possible_and_channels_must_fit() -> None:
    assert not list(problems(Image())) and not list(problems(Image(**GIVEN)))
    assert Image(**GIVEN).shape(20, 30, 3) == (20, 30, 3)
    assert Image(size=8).shape(20, 30, 1) == (8, 8, 1)
    with pytest.raises(ConfigError, match=r"features\.mean: found 3 values, expected 1"):
        Image(**GIVEN).shape(20, 30, 1)


# --- draws -----------------------------------------------------------------------------------------------------------

EVERYTHING = Image(crop="random_resized", flip=0.5, erase=Erase(0.5), mixup=0.3, normalize="none")


@pytest.mark.parametrize("spec", [Image(crop="pad", flip=0.5, mixup=0.3), EVERYTHING])
def test_draws_do_not_depend_on_the_batch(spec: Image) -> None:
    together = spec.draw_batch(20, 30, SEED, EPOCH, np.arange(50))
    parts = [spec.draw_batch(20, 30, SEED, EPOCH, part) for part in (np.array([7]), np.array([49, 3, 7]))]
    for field in ("boxes", "flips", "erased", "shares"):
        assert np.array_equal(parts[0][field], together[field][[7]])
        assert np.array_equal(parts[1][field], together[field][[49, 3, 7]])
    assert together["partners"].tolist() == [*range(1, 50), 0]


def test_draws_depend_on_seed_epoch_and_example() -> None:
    base = EVERYTHING.draw_batch(200, 300, 1, 2, np.arange(64))
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 64), (1 + 2**32, 2, 0), (1, 2, 2**32)):
        drawn = EVERYTHING.draw_batch(200, 300, other[0], other[1], np.arange(64) + other[2])
        for field in ("boxes", "flips", "erased", "shares"):
            assert not np.array_equal(drawn[field], base[field]), (other, field)


def test_an_option_does_not_change_what_another_draws() -> None:
    plain = Image(crop="pad", flip=0.5).draw_batch(20, 20, 1, 2, np.arange(64))
    more = Image(crop="pad", flip=0.5, erase=Erase(1.0), mixup=1.0).draw_batch(20, 20, 1, 2, np.arange(64))
    assert np.array_equal(plain["boxes"], more["boxes"]) and np.array_equal(plain["flips"], more["flips"])
    assert more["erased"].any() and (more["shares"] < 1).any()


def test_dtypes_are_those_of_a_batch_and_without_augmentation_nothing_is_drawn() -> None:
    for spec in (EVERYTHING, Image()):
        drawn = spec.draw_batch(20, 30, 0, 0, np.arange(6))
        assert {name: a.dtype for name, a in drawn.items()} == {
            name: np.dtype(d) for name, (_, d) in AUGMENTATION.items()
        }
    assert (drawn["boxes"] == EVERYTHING.whole(20, 30)).all() and drawn["boxes"][0].tolist() == [0, 0, 20, 30]
    assert not drawn["flips"].any() and not drawn["erased"].any() and (drawn["shares"] == 1).all()


def even(values: np.ndarray, count: int) -> bool:
    """Whether integers are drawn evenly from ``count``: chi square within five standard deviations of its mean."""
    wanted = len(values) / count
    chi = (((np.bincount(values, minlength=count) - wanted) ** 2) / wanted).sum()
    return abs(chi - (count - 1)) < 5 * np.sqrt(2 * (count - 1))


def test_padded_crops_are_even() -> None:
    drawn = Image(crop="pad", padding=4, flip=0.25).draw_batch(28, 30, 0, 0, np.arange(40000))
    assert (drawn["boxes"][:, 2:] == [28, 30]).all()
    places = drawn["boxes"][:, :2] + 4
    assert places.min() == 0 and places.max() == 8
    assert even(places[:, 0] * 9 + places[:, 1], 81)
    assert abs(drawn["flips"].mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 40000)
    assert abs(np.corrcoef(drawn["flips"], places[:, 0])[0, 1]) < 5 / np.sqrt(40000)


def test_random_boxes_have_even_areas_and_ratios_and_lie_inside() -> None:
    spec = Image(crop="random_resized", area=(0.1, 0.5), ratio=(0.5, 2.0))
    boxes = spec.draw_batch(400, 400, 0, 0, np.arange(20000))["boxes"]
    top, left, height, width = boxes.T
    assert boxes[:, :2].min() >= 0 and (top + height <= 400).all() and (left + width <= 400).all()
    area, ratio = height * width / 400**2, np.log2(width / height)
    assert even(np.clip((area - 0.1) / 0.4 * 8 // 1, 0, 7).astype(int), 8)
    assert even(np.clip((ratio + 1) / 2 * 8 // 1, 0, 7).astype(int), 8)
    assert abs(np.corrcoef(area, ratio)[0, 1]) < 5 / np.sqrt(20000)
    place = (top / np.maximum(400 - height, 1) * 5).astype(int).clip(0, 4)
    assert even(place, 5)


def test_where_no_box_fits_the_largest_of_an_allowed_ratio_is_taken() -> None:
    spec = Image(crop="random_resized", area=(1.0, 1.0), ratio=(0.75, 4 / 3))
    for height, width, wanted in ((10, 100, (10, 13)), (100, 10, (13, 10)), (1, 1, (1, 1))):
        boxes = spec.draw_batch(height, width, 0, 0, np.arange(20))["boxes"]
        assert (boxes[:, 2:] == wanted).all()
        assert (boxes[:, 0] + boxes[:, 2] <= height).all() and (boxes[:, 1] + boxes[:, 3] <= width).all()


def test_erased_boxes_keep_to_probability_area_and_picture() -> None:
    spec = Image(size=100, erase=Erase(0.3, (0.02, 0.4), (0.3, 1 / 0.3)), normalize="none")
    erased = spec.draw_batch(28, 20, 0, 0, np.arange(20000))["erased"]  # of the finished picture, so 100 x 100
    some = erased[erased[:, 2] > 0]
    assert abs(len(some) / 20000 - 0.3) < 5 * np.sqrt(0.21 / 20000)
    assert not erased[erased[:, 2] == 0].any()
    top, left, height, width = some.T
    area = height * width / 10000
    assert 0.019 < area.min() < 0.03 and 0.38 < area.max() < 0.41
    assert 0.28 < (width / height).min() < 0.32 and 3.1 < (width / height).max() < 3.6
    assert abs(np.log(width / height).mean()) < 0.05
    assert (top + height <= 100).all() and (left + width <= 100).all() and some[:, :2].min() == 0


@pytest.mark.parametrize("alpha", [0.02, 0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    drawn = np.sort(Image(mixup=alpha).draw_batch(8, 8, 0, 0, np.arange(20000))["shares"])
    assert drawn.dtype == np.float32 and drawn.min() >= 0 and drawn.max() <= 1
    beta = np.sort(np.random.Generator(np.random.Philox(key=2)).beta(alpha, alpha, 20000))
    inner = np.linspace(0.001, 0.999, 200)  # the greatest distance of two distributions, Kolmogorov and Smirnov
    distance = np.abs(np.searchsorted(drawn, inner) - np.searchsorted(beta, inner)).max() / 20000
    assert distance < 1.95 * np.sqrt(2 / 20000)  # met once in a thousand
    assert (symmetric_beta(np.array([2.0**-33, 0.5]), np.array([0.1, 0.6]), 1e-3) == [1.0, 0.0]).all()


def test_philox_gives_the_published_numbers() -> None:
    """The known answers of the authors' Random123."""
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], (0xA4093822, 0x299F31D0)
    for (counter, key), wanted in (
        (([0] * 4, (0, 0)), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (([2**32 - 1] * 4, (2**32 - 1,) * 2), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (pi, [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ):
        assert philox(np.array(counter, np.uint64)[:, None], key)[:, 0].tolist() == wanted


def test_uniform_numbers_are_even_and_fewer_are_the_first() -> None:
    numbers = uniform(3, "x", 1, np.arange(5000), 8)
    assert numbers.shape == (5000, 8) and numbers.min() > 0 and numbers.max() < 1
    assert even((numbers * 16).astype(int).ravel(), 16)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(8)).max() < 5 / np.sqrt(5000)
    assert np.array_equal(uniform(3, "x", 1, np.arange(5000), 3), numbers[:, :3])
    assert not np.isin(uniform(3, "y", 1, np.arange(10), 8), numbers).any()
