"""Speech corpora: recordings of a dataset, checked, decoded once and memory-mapped.

``prepare`` takes what a dataset names (``toolkit/datasets``), decodes it into one Arrow file in the cache and returns
the splits. ``check`` is the second stage, which needs the tokenizer and the model. Both list every problem at once
and, by the dataset's ``on_bad``, refuse the data or leave the bad recordings out with a count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.batch import Batch, pad, widths
from toolkit.data.corpus import (
    SPLITS,
    Corpus,
    Data,
    Given,
    Learned,
    Problem,
    Source,
    batched,
    cache_folder,
    clean,
    empty_splits,
    first_report,
    judge,
    misplaced,
    parted,
    passing_folder,
    progress,
    selected,
)


@dataclass(frozen=True)
class Recording:
    """What a dataset says about one recording, before anything is decoded.

    Args:
        id: unique in the corpus.
        split: "train", "validation" or "test".
        text: the transcript.
        audio: a file, its bytes, or a function that returns its bytes (then ``stamp`` is needed).
        origin: where the user finds it: "train/metadata.csv, line 12".
        name: file name of audio that is no path; its suffix tells the format.
        stamp: changes whenever the bytes of ``audio`` change; empty: derived from the file's size and times.
    """

    id: str
    split: str
    text: str
    audio: Path | bytes | Callable[[], bytes]
    origin: str
    name: str = ""
    stamp: str = ""

    @property
    def file_name(self) -> str:
        return self.audio.name if isinstance(self.audio, Path) else self.name


@dataclass(frozen=True)
class Split:
    """One split. The waveforms stay in the memory-mapped file ``path``, or those of a stream in a tuple; ``rows`` are
    their places in it."""

    name: str
    ids: list[str]
    texts: list[str]
    lengths: np.ndarray  # (recordings,) int64, samples, silence included
    origins: list[str]
    digests: list[str]  # SHA-256 of the undecoded audio
    path: Path | tuple[np.ndarray, ...]
    rows: np.ndarray  # (recordings,) int64
    sample_rate: int  # Hz
    silence: int = 0  # samples before and after each recording

    def __len__(self) -> int:
        return len(self.ids)

    def describe(self) -> str:
        return f"{len(self)} examples ({self.lengths.sum() / self.sample_rate / 3600:.2f} h)"

    def waveform(self, i: int) -> np.ndarray:
        """``(samples,)`` float32; without added silence a read-only view of the cache file. Full scale is 1.0."""
        from toolkit.data import cache as array_cache

        found = array_cache.values(self.path, int(self.rows[i]))
        return np.pad(found, self.silence) if self.silence else found

    def select(self, kept: Sequence[int]) -> Split:
        """The split with only the recordings at these positions."""
        return selected(self, kept)


@spec
class Speech(Source):
    """Fields that every speech dataset has."""

    domains: ClassVar[tuple[str, ...]] = ("speech",)

    pool: int = option(256, "streaming: recordings of a pool, from which batches of like lengths are made", ge=1)
    sample: int = option(1_000, "streaming: first recordings, from which tokenizer and features are learned", ge=1)
    sample_rate: int = option(16_000, "sample rate that everything is resampled to, in Hz", ge=4_000, le=192_000)
    min_seconds: float = option(0.05, "a shorter recording is bad, in seconds", ge=0)
    max_seconds: float = option(60.0, "a longer recording is bad, in seconds", gt=0)
    silence: float = option(
        0.0,
        "put before and after each recording, in seconds; clips cut at the first and last sound need it, or too few "
        "frames are left for CTC",
        ge=0,
        le=10,
    )


class Dataset(Protocol):
    """What ``prepare`` needs of a dataset spec, besides the fields of :class:`Speech`."""

    def recordings(self, cache: Path, progress: Any) -> Iterator[Recording | Problem]:
        """Yield what there is, in a stable order, and what is wrong with it.

        Args:
            cache: folder for downloads.
            progress: a running ``rich.progress.Progress``.
        """
        ...


class Tokenizer(Protocol):
    def encode(self, text: str) -> list[int]: ...

    def unknown(self, text: str) -> list[str]: ...


def prepare(dataset: Any, cache: Path | None = None) -> Corpus:
    """Fetch, check, decode and memory-map a dataset.

    Args:
        dataset: a spec with the fields of :class:`Speech` and the method of :class:`Dataset`.
        cache: instead of :func:`cache_folder`.

    Raises:
        DataError: every problem that was found, unless ``dataset.on_bad`` is "drop" and all can be left out.
        RunError: the cache cannot be written.
    """
    cache = cache or cache_folder()
    with progress() as bars:
        found, problems = parted(dataset.recordings(cache, bars))
        recordings, more = _sound(found)
        splits, unfit = _decoded(dataset, recordings, cache, bars)
    report = first_report(dataset, splits, problems + more + unfit, "recording")
    return Corpus(splits, _fingerprint(splits), report)


def gather(dataset: Any, found: Sequence[Recording | Problem]) -> tuple[Split, list[Problem]]:
    """The first stage for some recordings of the training split, which are decoded into memory."""
    recordings, problems = parted(found)
    recordings, more = _sound(recordings)
    splits, unfit = _decoded(dataset, recordings, None, progress())
    return splits["train"], problems + more + unfit


def _decoded(
    dataset: Any, recordings: list[Recording], cache: Path | None, bars: Any
) -> tuple[dict[str, Split], list[Problem]]:
    """Decode the recordings; those of a wrong length, or that cannot be decoded, become problems.

    Without a cache they are held in memory.
    """
    from toolkit.data import cache as array_cache
    from toolkit.data.media import audio

    rate = dataset.sample_rate
    items = [array_cache.Item(r.file_name, r.audio, r.stamp) for r in recordings]
    decoder = array_cache.Decoder(
        lambda data, name: audio.decode(data, name, rate), np.float32, f"{audio.VERSION} {rate}", "decoding audio"
    )
    if cache:
        store = array_cache.store(items, decoder, cache / "audio", bars)
    else:
        store = array_cache.hold(items, decoder, bars)
    problems = [Problem(kind, _where(recordings[i]), message) for i, kind, message in store.problems]
    kept = []
    for row, position in enumerate(store.positions):
        seconds = store.shapes[row][0] / rate
        if dataset.min_seconds <= seconds <= dataset.max_seconds:
            kept.append(row)
            continue
        kind, bound = ("too short", "min") if seconds < dataset.min_seconds else ("too long", "max")
        limit = getattr(dataset, f"{bound}_seconds")
        message = (
            f"{seconds:.3f} s, expected at {'least' if bound == 'min' else 'most'} {limit:g} (dataset.{bound}_seconds)"
        )
        problems.append(Problem(kind, _where(recordings[position]), message))
    silence = round(dataset.silence * dataset.sample_rate)
    return {n: _split(n, recordings, store, kept, dataset.sample_rate, silence) for n in SPLITS}, problems


def check(
    split: Split,
    tokenizer: Tokenizer,
    frames_of_samples: Callable[[np.ndarray], np.ndarray],
    most_frames: int | None = None,
) -> tuple[Split, list[Problem]]:
    """Hold every transcript of a split against the tokenizer and the model.

    Args:
        split: from :func:`prepare`.
        tokenizer: as learned from the training split.
        frames_of_samples: ``(n,)`` samples -> ``(n,)`` frames that the model emits for them.
        most_frames: longest output of the model, if it has a bound.

    Returns:
        the split without bad recordings, and what is wrong with those: characters that the tokenizer lacks; fewer
        output frames than CTC needs, one a token and one more between two equal tokens (Graves et al. 2006, section 3).
    """
    frames = np.asarray(frames_of_samples(split.lengths)) if len(split) else np.zeros(0, np.int64)
    problems: list[Problem] = []
    kept = []
    for i, text in enumerate(split.texts):
        where = f"{split.origins[i]} ({split.ids[i]})"
        problem = _untrainable(text, int(frames[i]), where, tokenizer, most_frames)
        if problem:
            problems.append(problem)
        else:
            kept.append(i)
    return split if len(kept) == len(split) else split.select(kept), problems


def _untrainable(text: str, frames: int, where: str, tokenizer: Tokenizer, most: int | None) -> Problem | None:
    if lacking := sorted(set(tokenizer.unknown(text))):
        found = ", ".join(f"{c!r} (U+{ord(c[0]):04X} {unicodedata.name(c[0], 'no name')})" for c in lacking)
        return Problem("unknown character", where, f"the tokenizer, learned from the training split, lacks {found}")
    if most is not None and frames > most:
        return Problem("too long for the model", where, f"{frames} output frames, at most {most} (model.max_positions)")
    ids = tokenizer.encode(text)
    repeats = sum(a == b for a, b in itertools.pairwise(ids))
    if frames < len(ids) + repeats:
        message = f"{frames} output frames, CTC needs {len(ids) + repeats} ({len(ids)} tokens, {repeats} repeats)"
        return Problem(
            "too short for its transcript", where, f"{message} for {text[:60]!r}: is it the right transcript?"
        )
    return None


def _where(recording: Recording) -> str:
    return f"{recording.origin} ({recording.file_name or recording.id})"


def _sound(recordings: list[Recording]) -> tuple[list[Recording], list[Problem]]:
    """The recordings with a usable transcript, split name and id, and the problems of the others."""
    kept: list[Recording] = []
    problems: list[Problem] = []
    first: dict[str, Recording] = {}
    for recording in recordings:
        kind, message = misplaced(recording, first)
        same_file = isinstance(recording.audio, Path) and recording.audio == first[recording.id].audio
        if not kind:
            kind, message = _bad_text(recording.text)
        elif kind == "duplicate id" and same_file:
            kind = "duplicate file"
        if kind:
            problems.append(Problem(kind, _where(recording), message))
        else:
            kept.append(dataclasses.replace(recording, text=clean(recording.text)))
    return kept, problems


def _bad_text(text: str) -> tuple[str, str]:
    """Kind and message of what is wrong with a transcript; two empty strings if nothing is."""
    for place, character in enumerate(text):
        if character in "\t\n\r":
            continue
        if unicodedata.category(character) in ("Cc", "Cs") or character == "\N{REPLACEMENT CHARACTER}":
            what = f"U+{ord(character):04X} at character {place + 1} of {text[:40]!r}"
            return "broken transcript", f"found {what}, expected text: was it saved in another encoding than UTF-8?"
    if not text.strip():
        return "empty transcript", "found no text, expected what is spoken"
    return "", ""


def _split(name: str, recordings: list[Recording], store: Any, kept: list[int], rate: int, silence: int) -> Split:
    rows = [row for row in kept if recordings[store.positions[row]].split == name]
    chosen = [recordings[store.positions[row]] for row in rows]
    return Split(
        name,
        [r.id for r in chosen],
        [r.text for r in chosen],
        np.array([store.shapes[row][0] + 2 * silence for row in rows], np.int64),
        [r.origin for r in chosen],
        [store.digests[row] for row in rows],
        store.path,
        np.array(rows, np.int64),
        rate,
        silence,
    )


def _fingerprint(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256(f"{splits['train'].sample_rate}\n".encode())
    for name, split in splits.items():
        for record in zip(split.ids, split.texts, split.digests, strict=True):
            digest.update("\0".join((name, *record, "")).encode())
    return digest.hexdigest()


def learn(run: Any, train: Split, folder: Path) -> None:
    """Learn the tokenizer and the features from the training split, into ``folder``."""
    run.tokenizer.learn(train.texts, folder / "tokenizer")
    run.features.learn((train.waveform(i) for i in range(len(train))), folder / "features")


def load(run: Any, folder: Path) -> Learned:
    """What :func:`learn` left."""
    tokenizer = run.tokenizer.load(folder / "tokenizer")
    return Learned(tokenizer, run.features.load(folder / "features"), run.features.bands, tokenizer.size)


def usable(run: Any, corpus: Corpus, learned: Learned) -> Corpus:
    """Second stage: :func:`fitting` of every split, judged by the dataset's policy.

    Raises:
        DataError: there are problems and they are not dropped; a split that is left empty.
    """
    problems: list[Problem] = []
    splits = {}
    for name, split in corpus.splits.items():
        splits[name], bad = fitting(run, split, learned)
        problems += bad
    problems += empty_splits(splits, "recording", run.dataset)
    report = judge(problems, run.dataset.on_bad, "this tokenizer and model")
    return Corpus(splits, _fingerprint(splits), corpus.report + report)


def fitting(run: Any, split: Split, learned: Learned) -> tuple[Split, list[Problem]]:
    """:func:`check` with what a run holds."""

    def frames(samples: np.ndarray) -> np.ndarray:
        return run.model.output_length(run.features.frames(samples))

    return check(split, learned.tokenizer, frames, getattr(run.model, "max_positions", None))


def data(run: Any, split: Split, learned: Learned, training: bool) -> Data:
    """Batches of a split under a budget of seconds; ``training`` draws SpecAugment."""
    tokens = [np.array(learned.tokenizer.encode(text), np.int32) for text in split.texts]
    collator = Collator(split, tokens, run.features, run.seed if training else None)
    return batched(run, split, collator, split.lengths, split.sample_rate)


ANSWER = "{id}\t{hypothesis}"  # a line of what toolkit.cli.predict prints


def given(run: Any, inputs: Sequence[str], learned: Learned) -> Given:
    """Audio files to be transcribed, and what is wrong with some of them.

    They are decoded into a folder that goes when the process ends.
    """
    cache = passing_folder()
    recordings = [Recording(str(i), "test", "", Path(name), name) for i, name in enumerate(inputs)]
    with progress() as bars:
        splits, problems = _decoded(run.dataset, recordings, cache, bars)
    split = splits["test"]
    few = np.flatnonzero(run.model.output_length(run.features.frames(split.lengths)) < 1)
    problems += [Problem("too short", split.origins[i], "too short for one frame of the model") for i in few]
    split = split.select([i for i in range(len(split)) if i not in set(few.tolist())])
    return Given(dataclasses.replace(split, ids=list(split.origins)), problems)


@dataclass(frozen=True)
class Collator:
    """Gathers the recordings of a batch.

    Args:
        split: where they are.
        tokens: token ids of every transcript of the split.
        features: the feature spec, which draws the augmentation.
        seed: seed of the augmentation; None for an evaluation, which draws nothing.
        first: the position that the split's first recording is called by.
    """

    split: Split
    tokens: list[np.ndarray]
    features: Any
    seed: int | None
    first: int = 0

    def known(self, positions: np.ndarray) -> Batch:
        places = positions - self.first
        return {
            "example": np.asarray(positions, np.int64),
            "waveform_lengths": self.split.lengths[places],
            "token_lengths": np.array([len(self.tokens[i]) for i in places.tolist()], np.int64),
        }

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        samples, longest = widths(whole, "waveform_lengths", "token_lengths")
        places = (positions - self.first).tolist()
        waveforms, waveform_lengths = pad([self.split.waveform(i) for i in places], np.float32, samples)
        tokens, token_lengths = pad([self.tokens[i] for i in places], np.int32, longest)
        time_masks, frequency_masks = self._masks(positions, waveform_lengths, epoch)
        return {
            "example": np.asarray(positions, np.int64),
            "waveforms": waveforms,
            "waveform_lengths": waveform_lengths,
            "tokens": tokens,
            "token_lengths": token_lengths,
            "time_masks": time_masks,
            "frequency_masks": frequency_masks,
        }

    def _masks(self, positions: np.ndarray, samples: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if self.seed is None:
            none = np.zeros((len(positions), 1, 2), np.int32)
            return none, none
        frames = self.features.frames(samples)
        drawn = [self.features.draw(int(f), self.seed, epoch, int(i)) for f, i in zip(frames, positions, strict=True)]
        return np.stack([t for t, _ in drawn]), np.stack([f for _, f in drawn])
