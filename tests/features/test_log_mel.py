"""Log-mel features and SpecAugment in numpy; the twins are held against these in ``tests/twins``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.config.spec import problems
from toolkit.errors import DataError
from toolkit.features.log_mel.spec import LogMel, SpecAugment


def tone(hertz: float, seconds: float = 0.5, rate: int = 16000) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("samples, frames", [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)])
def test_only_whole_frames_count(samples: int, frames: int) -> None:
    spec = LogMel()
    assert spec.frames(samples) == frames
    assert spec.frames(np.array([samples])).tolist() == [frames]
    assert spec.reference(np.ones(samples, np.float32)).shape == (frames, 80)


def test_sizes_follow_from_physical_units() -> None:
    spec = LogMel()
    assert (spec.window_samples, spec.hop_samples, spec.fft, spec.top, spec.bands) == (400, 160, 512, 8000, 80)
    slow = LogMel(sample_rate=8000)
    assert (slow.window_samples, slow.hop_samples, slow.fft, slow.top) == (200, 80, 256, 4000)
    assert LogMel(n_fft=400).fft == 400


def test_the_power_is_that_of_a_discrete_fourier_transform() -> None:
    spec = LogMel(normalize="none", window=0.004, hop=0.002, mels=5)
    random = np.random.Generator(np.random.Philox(key=1))
    waveform = random.standard_normal(100).astype(np.float32)
    n = np.arange(64)
    window = np.sin(np.pi * n / 64) ** 2
    transform = np.exp(-2j * np.pi * np.outer(n, np.arange(33)) / 64)
    for frame, found in enumerate(spec.reference(waveform)):
        power = np.abs((waveform[32 * frame : 32 * frame + 64] * window) @ transform) ** 2
        assert found == pytest.approx(np.log(power @ spec.mel_matrix()), rel=1e-6)


def test_mel_bands_are_triangles_on_the_htk_scale() -> None:
    spec = LogMel(min_frequency=100.0, max_frequency=7000.0, mels=20)
    matrix = spec.mel_matrix()
    hertz = np.arange(257) * 16000 / 512
    mel = 2595 * np.log10(1 + hertz / 700)
    low, high = 2595 * np.log10(1 + 100 / 700), 2595 * np.log10(11)
    step = (high - low) / 21
    assert matrix.shape == (257, 20)
    for band in range(20):
        inside = (mel > low + band * step) & (mel < low + (band + 2) * step)
        assert np.array_equal(matrix[:, band] > 1e-9, inside)  # the upper edge falls on a bin, but for rounding
        assert 0.5 < matrix[:, band].max() <= 1
    between = (mel > low + step) & (mel < high - step)
    assert matrix.sum(1)[between] == pytest.approx(1)  # neighbours share every bin


@pytest.mark.parametrize("hertz", [300, 1000, 4000])
def test_a_tone_is_loudest_in_its_own_band(hertz: float) -> None:
    spec = LogMel(normalize="none")
    loudest = spec.reference(tone(hertz)).mean(0).argmax()
    assert abs(spec.mel_matrix()[:, loudest].argmax() * 16000 / 512 - hertz) < 80


def test_silence_is_the_floor_and_normalises_to_zero() -> None:
    silence = np.zeros(8000, np.float32)
    assert (LogMel(normalize="none").reference(silence) == np.float32(np.log(1e-10))).all()
    assert np.abs(LogMel().reference(silence)).max() < 1e-9


def test_an_utterance_is_normalised_band_by_band() -> None:
    random = np.random.Generator(np.random.Philox(key=2))
    values = LogMel().reference(random.standard_normal(16000).astype(np.float32) * np.linspace(0.01, 1, 16000))
    assert np.abs(values.mean(0)).max() < 1e-6
    assert values.std(0) == pytest.approx(1, abs=1e-4)


def test_the_training_set_is_learned_and_read_again(tmp_path: Path) -> None:
    random = np.random.Generator(np.random.Philox(key=2))
    waveforms = [random.standard_normal(n).astype(np.float32) for n in (4000, 9000, 300)]
    spec = LogMel(normalize="training_set")
    spec.learn(iter(waveforms), tmp_path / "features")
    state = spec.load(tmp_path / "features")
    raw = np.concatenate([LogMel(normalize="none").reference(w) for w in waveforms]).astype(np.float64)
    assert state["mean"] == pytest.approx(raw.mean(0), rel=1e-6)
    assert state["variance"] == pytest.approx(raw.var(0), rel=1e-5)
    together = np.concatenate([spec.reference(w, state) for w in waveforms])
    assert np.abs(together.mean(0)).max() < 1e-5


def test_statistics_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    spec = LogMel(normalize="training_set")
    with pytest.raises(DataError, match=r"log_mel\.json: cannot read the statistics .*normalize=training_set"):
        spec.load(tmp_path)
    LogMel(normalize="training_set", mels=20).learn([np.ones(1000, np.float32)], tmp_path)
    with pytest.raises(DataError, match=r"of shapes \[\(20,\), \(20,\)\], expected 80 values, one per mel band"):
        spec.load(tmp_path)


@pytest.mark.parametrize("normalize", ["utterance", "none"])
def test_nothing_is_learned_where_nothing_is_needed(normalize: str, tmp_path: Path) -> None:
    spec = LogMel(normalize=normalize)  # type: ignore[arg-type]
    spec.learn(iter([np.zeros(4000, np.float32)]), tmp_path / "features")
    assert not (tmp_path / "features").exists()
    assert spec.load(tmp_path / "features") == {}


@pytest.mark.parametrize(
    "spec, field, words",
    [
        (LogMel(mels=0), "mels", "at least 1"),
        (LogMel(window=-1.0), "window", "more than 0"),
        (LogMel(hop=1e-5), "hop", "expected at least one sample at 16000 Hz"),
        (LogMel(window=1e-5), "window", "expected at least two samples"),
        (LogMel(n_fft=256), "n_fft", "at least the window's 400 samples"),
        (LogMel(max_frequency=9000.0), "max_frequency", "8000"),
        (LogMel(min_frequency=5000.0, max_frequency=4000.0), "max_frequency", "more than min_frequency (5000)"),
        (LogMel(mels=200, spec_augment=SpecAugment(max_bands=0)), "mels", "hold no Fourier bin"),
        (LogMel(mels=20), "spec_augment.max_bands", "at most mels (20)"),
        (LogMel(spec_augment=SpecAugment(max_time_fraction=2.0)), "spec_augment.max_time_fraction", "at most 1"),
    ],
)
def test_impossible_values_are_named(spec: LogMel, field: str, words: str) -> None:
    found = dict(problems(spec))
    assert words in found[field]


def test_the_defaults_are_possible() -> None:
    assert not list(problems(LogMel())) and not list(problems(LogMel(sample_rate=8000)))


def test_masks_are_drawn_by_seed_epoch_and_example_alone() -> None:
    spec = LogMel()
    first = spec.draw(400, seed=1, epoch=2, example=3)
    spec.draw(50, seed=9, epoch=9, example=9)
    again = spec.draw(400, seed=1, epoch=2, example=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in ({"seed": 2}, {"epoch": 3}, {"example": 2}):
        drawn = spec.draw(400, **({"seed": 1, "epoch": 2, "example": 3} | other))
        assert not np.array_equal(first[0], drawn[0])


def test_masks_stay_within_the_utterance_and_the_bounds() -> None:
    spec = LogMel(spec_augment=SpecAugment(3, 15, 4, 30, 0.2))
    for frames, longest in ((400, 30), (100, 20), (4, 0), (0, 0)):
        drawn = [spec.draw(frames, 0, 0, example) for example in range(300)]
        time, bands = (np.concatenate(masks) for masks in zip(*drawn, strict=True))
        assert time.dtype == bands.dtype == np.int32
        assert time.shape == (1200, 2) and bands.shape == (900, 2)
        for masks, widest, size in ((time, longest, frames), (bands, 15, 80)):
            assert masks.min() == 0 and masks[:, 1].max() == widest and masks.sum(1).max() <= size
            if widest:  # every width is as likely
                assert np.bincount(masks[:, 1]).min() > 0.3 * len(masks) / (widest + 1)
    none = LogMel(spec_augment=SpecAugment(0, 0, 0, 0, 0.0)).draw(100, 0, 0, 0)
    assert [masks.shape for masks in none] == [(0, 2), (0, 2)]
