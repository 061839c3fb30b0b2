"""Log-mel features with SpecAugment."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.columns.audio import AudioFields
from toolkit.features import statistics

if TYPE_CHECKING:
    from toolkit.config.schema import Run

STATISTICS = "log_mel.json"  # written by `learn` into the run folder


@spec
class SpecAugment:
    """Masks of mel bands and time spans on training examples (Park et al. 2019, "SpecAugment", without warping).

    Masked values are zero after normalization, which is the mean of their band. The defaults are those of Gulati et al.
    2020, section 3.2. The width of a mask is drawn uniformly from 0 to the largest, then its position.
    """

    frequency_masks: int = option(default=2, doc="number of band masks per utterance; 0 = none", ge=0)
    max_bands: int = option(default=27, doc="largest width of a band mask, in bands", ge=0)
    time_masks: int = option(default=10, doc="number of time masks per utterance; 0 = none", ge=0)
    max_frames: int = option(default=100, doc="largest width of a time mask, in frames", ge=0)
    max_time_fraction: float = option(
        default=0.05, doc="largest width of a time mask, as a fraction of the utterance", ge=0, le=1
    )


@spec
class LogMel:
    """Logarithm of the power in triangular mel bands, normalized.

    A frame is ``window`` seconds of the waveform times a periodic Hann window. Only whole frames are used, starting at
    the first sample, so the padding of a batch never affects an utterance. The mel scale is HTK's,
    ``2595 log10(1 + f / 700)``, with triangles in hertz that peak at one. All arithmetic is in float64 and the result
    is rounded once, so both backends give the same float32 numbers.
    """

    column: ClassVar[str] = "audio"  # kind of column that these are features of

    sample_rate: int = option(16000, "sample rate of the waveforms in Hz", ge=1000, le=384000)
    window: float = option(0.025, "length of a frame in seconds", gt=0, le=1)
    hop: float = option(0.010, "step between frames in seconds", gt=0, le=1)
    n_fft: int | None = option(None, "points of the Fourier transform; null = next power of two after the window", ge=2)
    mels: int = option(80, "number of mel bands", ge=1)
    min_frequency: float = option(0.0, "lower edge of the first band in Hz", ge=0)
    max_frequency: float | None = option(None, "upper edge of the last band in Hz; null = half the sample rate", gt=0)
    log_floor: float = option(1e-10, "smallest power of a band before the logarithm (full scale is 1.0)", gt=0)
    normalize: Literal["utterance", "training_set", "none"] = option(
        "utterance", "normalize each band to mean 0 and variance 1 over the utterance, over the training split, or not"
    )
    epsilon: float = option(1e-5, "added to the variance in normalization", gt=0)
    spec_augment: SpecAugment = option(SpecAugment(), "masks on training examples")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.hop_samples < 1:
            yield "hop", f"found {self.hop} s, expected at least one sample at {self.sample_rate} Hz"
        if self.window_samples < 2:
            yield "window", f"found {self.window} s, expected at least two samples at {self.sample_rate} Hz"
        elif self.fft < self.window_samples:
            yield "n_fft", f"found {self.n_fft}, expected at least the window's {self.window_samples} samples"
        elif not self.min_frequency < self.top <= self.sample_rate / 2:
            yield (
                "max_frequency",
                f"found {self.top:g}, expected more than min_frequency ({self.min_frequency:g}) and at most half the "
                f"sample rate ({self.sample_rate / 2:g})",
            )
        elif empty := int((self.mel_matrix().sum(0) == 0).sum()):
            yield "mels", f"found {self.mels}: {empty} bands hold no Fourier bin; set fewer, or a larger n_fft"
        if self.spec_augment.max_bands > self.mels:
            yield "spec_augment.max_bands", f"found {self.spec_augment.max_bands}, expected at most mels ({self.mels})"

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """The sample rate is that of the dataset."""
        if isinstance(run.dataset, AudioFields) and run.dataset.sample_rate != self.sample_rate:
            yield "sample_rate", f"found {self.sample_rate}, expected dataset.sample_rate, {run.dataset.sample_rate}"

    @property
    def bands(self) -> int:
        """Size of a frame of features."""
        return self.mels

    @property
    def window_samples(self) -> int:
        return round(self.window * self.sample_rate)

    @property
    def hop_samples(self) -> int:
        return round(self.hop * self.sample_rate)

    @property
    def fft(self) -> int:
        """Points of the Fourier transform."""
        return self.n_fft or 1 << (self.window_samples - 1).bit_length()

    @property
    def top(self) -> float:
        """Upper edge of the last band in Hz."""
        return self.sample_rate / 2 if self.max_frequency is None else self.max_frequency

    def frames(self, samples: Any) -> Any:
        """Count the whole frames in ``samples`` samples.

        Args:
            samples: int, numpy array or tensor of either framework.
        """
        out = (samples - self.window_samples) // self.hop_samples + 1
        return (out + abs(out)) // 2  # not below zero, in arithmetic that all of these types have

    def window_function(self) -> np.ndarray:
        """Return the periodic Hann window, ``(window,)`` float64."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window_samples) / self.window_samples)

    def mel_matrix(self) -> np.ndarray:
        """Return the weight of every Fourier bin in every band, ``(fft // 2 + 1, mel)`` float64."""
        low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (self.min_frequency, self.top))
        edges = 700.0 * (10.0 ** (np.linspace(low, high, self.mels + 2) / 2595.0) - 1.0)
        bins = np.arange(self.fft // 2 + 1)[:, None] * (self.sample_rate / self.fft)
        left, centre, right = edges[:-2], edges[1:-1], edges[2:]
        return np.maximum(0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))

    def reference(self, waveform: np.ndarray, state: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Compute the features of one utterance in numpy, without masks, as the reference of both twins.

        Args:
            waveform: ``(samples,)``, full scale 1.0.
            state: result of :meth:`load`; required if ``normalize`` is ``training_set``.

        Returns:
            ``(frames, mel)`` float32.
        """
        values = self._log_mel(waveform)
        if self.normalize == "utterance" and len(values):
            values = (values - values.mean(0)) / np.sqrt(values.var(0) + self.epsilon)
        elif self.normalize == "training_set":
            assert state is not None
            values = (values - state["mean"]) / np.sqrt(state["variance"] + self.epsilon)
        return values.astype(np.float32)

    def _log_mel(self, waveform: np.ndarray) -> np.ndarray:
        if not self.frames(len(waveform)):
            return np.zeros((0, self.mels))
        frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), self.window_samples)
        spectrum = np.fft.rfft(frames[:: self.hop_samples] * self.window_function(), self.fft)
        return np.log(np.maximum((spectrum.real**2 + spectrum.imag**2) @ self.mel_matrix(), self.log_floor))

    def learn(self, waveforms: Iterable[np.ndarray], folder: Path) -> None:
        """Write the statistics of the training split into ``folder`` if ``normalize`` is ``training_set``."""
        if self.normalize != "training_set":
            return
        count, total, squares = 0, np.zeros(self.mels), np.zeros(self.mels)
        for waveform in waveforms:
            values = self._log_mel(waveform)
            count, total, squares = count + len(values), total + values.sum(0), squares + (values**2).sum(0)
        mean = total / max(count, 1)
        variance = np.maximum(squares / max(count, 1) - mean**2, 0.0)
        statistics.save(folder / STATISTICS, mean, variance)

    def load(self, folder: Path) -> dict[str, np.ndarray]:
        """Read what :meth:`learn` wrote: ``mean`` and ``variance`` of each band, float64; empty if not needed.

        Raises:
            DataError: the file does not exist, is damaged, or has another number of bands.
        """
        if self.normalize != "training_set":
            return {}
        return statistics.load(folder / STATISTICS, "mel band", self.mels)

    def draw(self, frames: int, seed: int, epoch: int, example: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the masks of one training example, independent of backend, batch and worker.

        Args:
            frames: length of the utterance.
            example: position of the example in its split.

        Returns:
            ``(time_masks, 2)`` and ``(frequency_masks, 2)`` int32 rows of (first, width).
        """
        key = np.array([seed, zlib.crc32(b"spec_augment")], np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, epoch, example], np.uint64)))
        augment = self.spec_augment
        longest = min(augment.max_frames, int(augment.max_time_fraction * frames))
        time_masks = _spans(generator, augment.time_masks, longest, frames)
        return time_masks, _spans(generator, augment.frequency_masks, augment.max_bands, self.mels)


def _spans(generator: np.random.Generator, count: int, widest: int, size: int) -> np.ndarray:
    width = generator.integers(0, widest, count, endpoint=True)
    return np.stack([generator.integers(0, size - width, endpoint=True), width], axis=-1).astype(np.int32)
