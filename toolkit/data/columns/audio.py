"""Audio: recordings, decoded once to float32 waveforms at one sample rate and memory-mapped."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data import cache as array_cache
from toolkit.data.batch import Batch, Fields, pad, widths
from toolkit.data.columns.column import Column, Decoded, Flaw, Lengths, Limit, Question, Shortened, flaws, selected
from toolkit.data.description import SPREAD, Description, Histogram, Sample, spread
from toolkit.data.example import File
from toolkit.data.files import files
from toolkit.data.media import audio, pauses
from toolkit.data.media.excerpt import excerpt
from toolkit.data.problems import Problem

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

FIELDS: Fields = {
    "waveforms": (("batch", "samples"), np.float32),  # full scale is 1.0
    "waveform_lengths": (("batch",), np.int32),  # samples
}
MASKS: Fields = {  # SpecAugment
    "time_masks": (("batch", "masks", 2), np.int32),  # (first frame, frames); 0 frames = no mask
    "frequency_masks": (("batch", "masks", 2), np.int32),  # (first band, bands)
}


@spec
class AudioFields:
    """Fields of a dataset that has audio."""

    sample_rate: int = option(16_000, "sample rate to which all audio is resampled, in Hz", ge=4_000, le=192_000)
    min_seconds: float = option(0.05, "shortest recording, in seconds; a shorter one is bad", ge=0)
    max_seconds: float = option(60.0, "longest recording, in seconds; a longer one is bad", gt=0)
    silence: float = option(
        0.0,
        "silence added before and after each recording, in seconds; tightly trimmed clips need it to have enough "
        "frames for CTC",
        ge=0,
        le=10,
    )


class AudioFeatures(Protocol):
    """The contract of audio features, such as log-mel."""

    bands: int

    def frames(self, samples: Any) -> Any: ...

    def learn(self, waveforms: Iterable[np.ndarray], folder: Path) -> None: ...

    def load(self, folder: Path) -> dict[str, np.ndarray]: ...

    def draw(self, frames: int, seed: int, epoch: int, example: int) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class AudioValues:
    """Waveforms of a split.

    Args:
        lengths: ``(recordings,)`` int64, samples, added silence included.
        digests: SHA-256 of the undecoded files.
        path: the memory-mapped file that holds the waveforms, or the waveforms themselves.
        rows: ``(recordings,)`` int64, their rows in it.
        sample_rate: in Hz.
        silence: samples added before and after each recording.
        starts: ``(recordings,)`` int64, the first sample of each in its row; None: they are whole rows.
    """

    lengths: np.ndarray
    digests: list[str]
    path: Path | tuple[np.ndarray, ...]
    rows: np.ndarray
    sample_rate: int
    silence: int = 0
    starts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def header(self) -> str:
        return f"{self.sample_rate}\n"

    @property
    def records(self) -> Sequence[str]:
        return self.digests

    def describe(self) -> str:
        return f"{self.lengths.sum() / self.sample_rate / 3600:.2f} h"

    def waveform(self, i: int) -> np.ndarray:
        """Return ``(samples,)`` float32, full scale 1.0; without added silence a read-only view of the cache file."""
        samples = array_cache.values(self.path, int(self.rows[i]))
        if self.starts is not None:
            start = int(self.starts[i])
            samples = samples[start : start + int(self.lengths[i]) - 2 * self.silence]
        return np.pad(samples, self.silence) if self.silence else samples

    def select(self, kept: Sequence[int]) -> AudioValues:
        return selected(self, kept)


@dataclass(frozen=True)
class AudioBatcher:
    """Waveforms of a batch, and the SpecAugment masks drawn for it.

    Args:
        values: of the split.
        features: draw the masks.
        seed: of the draws; None in evaluation.
    """

    values: AudioValues
    features: AudioFeatures
    seed: int | None

    @property
    def fields(self) -> Fields:
        return FIELDS if self.seed is None else FIELDS | MASKS

    def lengths(self, places: np.ndarray) -> Batch:
        return {"waveform_lengths": self.values.lengths[places]}

    def collate(self, places: np.ndarray, whole: Batch | None) -> Batch:
        (longest,) = widths(whole, "waveform_lengths")
        waveforms, lengths = pad([self.values.waveform(i) for i in places.tolist()], np.float32, longest)
        return {"waveforms": waveforms, "waveform_lengths": lengths}

    def augment(self, batch: Batch, positions: np.ndarray, epoch: int) -> Batch:
        if self.seed is None:
            return {}
        frames = zip(self.features.frames(batch["waveform_lengths"]), positions, strict=True)
        drawn = [self.features.draw(int(count), self.seed, epoch, int(i)) for count, i in frames]
        return {"time_masks": np.stack([t for t, _ in drawn]), "frequency_masks": np.stack([f for _, f in drawn])}


class Audio(Column[AudioValues]):
    """Recordings, as a model sees them through the run's features."""

    kind: ClassVar[str] = "audio"
    noun: ClassVar[str] = "recording"
    group: ClassVar[Literal["features", "tokenizer"] | None] = "features"
    precedence: ClassVar[int] = 2
    shown: ClassVar[int] = 3
    decodes: ClassVar[bool] = True

    dataset: Any  # has AudioFields
    component: Any  # AudioFeatures

    def decode(
        self, values: Sequence[File], wheres: Sequence[str], cache: Path | None, progress: Bars
    ) -> Decoded[AudioValues]:
        return self._decode(values, self.dataset.max_seconds, cache, progress)

    def _decode(
        self, values: Sequence[File], longest: float, cache: Path | None, progress: Bars
    ) -> Decoded[AudioValues]:
        rate = self.dataset.sample_rate
        decode = functools.partial(audio.decode, sample_rate=rate)
        decoder = array_cache.Decoder(decode, np.float32, f"{audio.VERSION} {rate}", "decoding audio")
        store = array_cache.store(values, decoder, cache and cache / "audio", progress)
        all_flaws = flaws(store.problems)
        rows = []
        for row, position in enumerate(store.positions):
            kind, message = self._bad_length(store.shapes[row][0] / rate, longest)
            if kind:
                all_flaws.append(Flaw(position, kind, message))
            else:
                rows.append(row)
        silence = round(self.dataset.silence * rate)
        decoded = AudioValues(
            np.array([store.shapes[row][0] + 2 * silence for row in rows], np.int64),
            [store.digests[row] for row in rows],
            store.path,
            np.array(rows, np.int64),
            rate,
            silence,
        )
        return Decoded(decoded, [store.positions[row] for row in rows], all_flaws)

    def _bad_length(self, seconds: float, most: float) -> tuple[str, str]:
        least = self.dataset.min_seconds
        if seconds < least:
            return "too short", f"{seconds:.3f} s, expected at least {least:g} (dataset.min_seconds)"
        if seconds > most:
            return "too long", f"{seconds:.3f} s, expected at most {most:g} (dataset.max_seconds)"
        return "", ""

    def learn(self, values: Sequence[AudioValues], folder: Path) -> None:
        self.component.learn((part.waveform(i) for part in values for i in range(len(part))), folder)

    def load(self, folder: Path) -> Mapping[str, np.ndarray]:
        return self.component.load(folder)

    def size(self, learned: Mapping[str, np.ndarray]) -> int:
        return self.component.bands

    def state(self, learned: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return learned

    def describe(self, values: AudioValues, learned: Any) -> Description:
        """Describe durations, added silence included."""
        seconds = values.lengths / values.sample_rate
        facts = (
            ("hours", f"{seconds.sum() / 3600:.2f}"),
            (f"seconds, {SPREAD}", spread(seconds, 1)),
            ("sample rate", f"{values.sample_rate:,} Hz"),
        )
        return Description(facts, Histogram("length of a recording", "s", seconds))

    def sample(self, values: AudioValues, i: int) -> Sample:
        """Return the start of a recording."""
        return Sample(media=excerpt(values.waveform(i), values.sample_rate), mime="audio/flac")

    def lengths(self, values: AudioValues) -> Lengths:
        return Lengths(values.lengths, values.sample_rate)

    def fields(self) -> Fields:
        return FIELDS

    def augmentation(self) -> Fields:
        return MASKS

    def batcher(self, values: AudioValues, learned: Any, seed: int | None) -> AudioBatcher:
        return AudioBatcher(values, self.component, seed)

    def questions(self, inputs: Iterable[str]) -> Iterator[Question | Problem]:
        """Yield each input as a file, or the files of a folder."""
        return files(inputs, self.noun, audio.FORMATS)

    def decode_questions(
        self, values: Sequence[File], wheres: Sequence[str], cache: Path | None, progress: Bars
    ) -> Decoded[AudioValues]:
        return self._decode(values, math.inf, cache, progress)

    def shorten(self, values: AudioValues, limit: Limit | None, pieces: bool) -> Shortened[AudioValues]:
        """Split long recordings at pauses, or keep only their first pieces."""
        rate, silence = values.sample_rate, 2 * values.silence
        own = Limit(round(self.dataset.max_seconds * rate) + silence, "dataset.max_seconds")
        least = min(own, limit or own, key=lambda one: one.size)
        longest = least.size - silence
        if longest < max(1, self.dataset.min_seconds * rate) or (values.lengths <= least.size).all():
            return Shortened(values, range(len(values)))
        positions: list[int] = []
        ranges: list[tuple[int, int]] = []
        notes = []
        for i in range(len(values)):
            samples = array_cache.values(values.path, int(values.rows[i]))
            ends = pauses.ends(samples, longest, rate)
            if len(ends) > 1:
                done = f"split at pauses into {len(ends)} pieces" if pieces else "cut to its first piece"
                bound = f"of at most {longest / rate:g} s ({least.field})"
                notes.append((i, f"{len(samples) / rate:,.1f} s, {done} {bound}"))
            spans = list(itertools.pairwise([0, *ends]))
            ranges += spans if pieces else spans[:1]
            positions += [i] * (len(ranges) - len(positions))
        starts, stops = np.array(ranges, np.int64).T
        chosen = values.select(positions)
        return Shortened(replace(chosen, starts=starts, lengths=stops - starts + silence), positions, notes)
