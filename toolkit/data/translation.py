"""Parallel corpora: sentences and their translations, checked, and as token ids in batches.

``prepare`` takes the pairs that a dataset names (``toolkit/datasets``) and returns the splits. ``usable`` is the second
stage, which needs the tokenizer. Both list every problem at once and, by the dataset's ``on_bad``, refuse the data or
leave the bad pairs out with a count.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import re
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.batch import Batch, pad, widths
from toolkit.data.corpus import (
    LISTED,
    SPLITS,
    Corpus,
    Data,
    Given,
    Learned,
    Problem,
    Report,
    Source,
    batched,
    cache_folder,
    clean,
    empty_splits,
    first_report,
    judge,
    misplaced,
    parted,
    progress,
    selected,
)

SIDES = ("source", "target")  # folders of separate tokenizers
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"  # the byte-order mark
# What no text has: control characters but tab and line feed, halves of surrogate pairs (which stand for bytes that are
# not UTF-8), a byte-order mark, and the character that stands for one that was lost.
FOREIGN = re.compile(f"[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{BOM}\N{REPLACEMENT CHARACTER}]")


@dataclass(frozen=True)
class Pair:
    """A sentence and its translation, as a dataset gives it.

    Args:
        id: unique in the corpus.
        split: "train", "validation" or "test".
        source, target: the texts; a byte that is not UTF-8 as Python's ``surrogateescape`` gives it.
        origin: where the user finds it: "train.tsv, line 12".
        languages: of source and target.
    """

    id: str
    split: str
    source: str
    target: str
    origin: str
    languages: tuple[str, str]


@dataclass(frozen=True)
class Tokens:
    """Token ids of many sentences, end to end, so that a loader's processes are sent two arrays and not a list.

    Args:
        values: ``(all tokens,)`` int32.
        ends: ``(sentences,)`` int64, where each ends in ``values``.
    """

    values: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]]) -> Tokens:
        values = np.fromiter((token for sentence in sentences for token in sentence), np.int32)
        return cls(values, np.cumsum(np.fromiter(map(len, sentences), np.int64)))

    @property
    def lengths(self) -> np.ndarray:
        """``(sentences,)`` int64."""
        return np.diff(self.ends, prepend=0)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.ends[i - 1] if i else 0 : self.ends[i]]

    def select(self, kept: Sequence[int]) -> Tokens:
        """Only the sentences at these positions."""
        lengths = self.lengths
        chosen = np.zeros(len(lengths), np.bool_)
        chosen[list(kept)] = True
        return Tokens(self.values[np.repeat(chosen, lengths)], np.cumsum(lengths[chosen]))


@dataclass(frozen=True)
class Split:
    """One split; ``texts`` are the translations of ``sources``, ``tokens`` both of them once a tokenizer is known."""

    name: str
    ids: list[str]
    sources: list[str]
    texts: list[str]
    origins: list[str]
    languages: tuple[str, str]
    tokens: tuple[Tokens, Tokens] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def describe(self) -> str:
        return f"{len(self):,} pairs {'-'.join(self.languages)}"

    def select(self, kept: Sequence[int]) -> Split:
        """The split with only the pairs at these positions, which are in order."""
        tokens = self.tokens and (self.tokens[0].select(kept), self.tokens[1].select(kept))
        return selected(self, kept, tokens=tokens)


@spec
class Pairs(Source):
    """Fields that every parallel corpus has."""

    domains: ClassVar[tuple[str, ...]] = ("translation",)

    pool: int = option(8192, "streaming: pairs of a pool, from which batches of like lengths are made", ge=1)
    source: str | None = option(None, "language that is translated from, as the data calls it: en")
    target: str | None = option(None, "language that is translated to, as the data calls it: de")
    repeats: Literal["bad", "keep"] = option(
        "keep", "a pair that is in two splits, word for word: bad, or kept and named in the log"
    )
    max_ratio: float | None = option(
        None,
        "a pair is bad if one side has more than so many times the characters of the other; null: any may be",
        gt=1,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.source is not None and self.source == self.target:
            yield "target", f"found {self.target}, which is dataset.source too, expected another language"


class Dataset(Protocol):
    """What ``prepare`` needs of a dataset spec, besides the fields of :class:`Pairs`."""

    def pairs(self, cache: Path, progress: Any) -> Iterator[Pair | Problem]:
        """Yield what there is, in a stable order, and what is wrong with it.

        Args:
            cache: folder for downloads.
            progress: a running ``rich.progress.Progress``.
        """
        ...


# --- text ------------------------------------------------------------------------------------------------------------


def read_lines(file: Path, where: str) -> list[str] | Problem:
    """The lines of a text file, which may be gzipped; see :func:`split_lines`.

    Args:
        file: what is read.
        where: what to call it.

    Returns:
        the lines; or why it cannot be read.
    """
    from toolkit.data.sources import fetch

    try:
        data = file.read_bytes()
        data = fetch.gunzip(data, where) if file.suffix == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        return Problem("damaged file", where, f"not a whole gzip file ({error}), copy it again", fatal=True)
    except OSError as error:
        return Problem("unreadable file", where, f"{error.strerror}, expected a file that can be read", fatal=True)
    return split_lines(data, where)


def split_lines(data: bytes, where: str) -> list[str] | Problem:
    """The lines of a text, ended by LF or CR LF; a byte-order mark at its start is left out.

    Only LF ends a line: a form feed or a Unicode line separator inside of a sentence would put all that follow out of
    line with their translations.

    Args:
        data: the text.
        where: what to call it.

    Returns:
        the lines, bytes that are not UTF-8 as ``surrogateescape`` gives them; or why they cannot be told.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        message = "it begins with the byte-order mark of UTF-16; save the file as UTF-8"
        return Problem("not UTF-8", where, message, fatal=True)
    lines = data.decode("utf-8", "surrogateescape").removeprefix(BOM).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def bad_text(text: str) -> tuple[str, str]:
    """Kind and message of what is wrong with a sentence; two empty strings if nothing is."""
    if not text or text.isspace():
        return "empty side", "found no text"
    if not (match := FOREIGN.search(text)):
        return "", ""
    found, place = match[0], f"character {match.start() + 1} of {text[:40]!r}"
    if "\udc80" <= found <= "\udcff":
        return "not UTF-8", f"byte 0x{ord(found) - 0xDC00:02x} at {place} is not UTF-8; save the file as UTF-8"
    if found == BOM:
        return "byte-order mark", f"found U+FEFF at {place}, expected it at most where a file begins"
    if found == "\N{REPLACEMENT CHARACTER}":
        return "lost character", f"found U+FFFD at {place}: was the text once read in another encoding than its own?"
    name = " (a carriage return that ends no line)" if found == "\r" else ""
    return "control character", f"found U+{ord(found):04X}{name} at {place}, expected text"


# --- first stage -----------------------------------------------------------------------------------------------------


def prepare(dataset: Any, cache: Path | None = None) -> Corpus:
    """Fetch, read and check a dataset.

    Args:
        dataset: a spec with the fields of :class:`Pairs` and the method of :class:`Dataset`.
        cache: instead of :func:`toolkit.data.corpus.cache_folder`.

    Raises:
        DataError: every problem that was found, unless ``dataset.on_bad`` is "drop" and all can be left out.
    """
    with progress() as bars:
        found, problems = parted(dataset.pairs(cache or cache_folder(), bars))
    pairs, more = _sound(found, dataset.max_ratio)
    problems += more
    repeats = _repeats(pairs)
    if dataset.repeats == "bad":
        problems += [_in_two(pairs[i], other) for i, other in repeats.items()]
        pairs = [pair for i, pair in enumerate(pairs) if i not in repeats]
    splits = {name: _split(name, pairs) for name in SPLITS}
    report = first_report(dataset, splits, problems, "pair")
    if dataset.repeats == "keep":
        report += Report({}, [], tuple(_kept(pairs, repeats)))
    return Corpus(splits, _fingerprint(splits), report)


def gather(dataset: Any, found: Sequence[Pair | Problem]) -> tuple[Split, list[Problem]]:
    """The first stage for some pairs of the training split."""
    pairs, problems = parted(found)
    pairs, more = _sound(pairs, dataset.max_ratio)
    return _split("train", pairs), problems + more


def _sound(pairs: Iterable[Pair], max_ratio: float | None) -> tuple[list[Pair], list[Problem]]:
    """The usable pairs, their texts cleaned, and the problems of the others."""
    kept: list[Pair] = []
    problems: list[Problem] = []
    first: dict[str, Pair] = {}
    for pair in pairs:
        kind, message = misplaced(pair, first)
        if not kind:
            kind, message = _bad_pair(pair, max_ratio)
        if kind:
            problems.append(Problem(kind, pair.origin, message))
        else:
            texts = clean(pair.source), clean(pair.target)
            kept.append(Pair(pair.id, pair.split, *texts, pair.origin, pair.languages))
    return kept, problems


def _bad_pair(pair: Pair, max_ratio: float | None) -> tuple[str, str]:
    """Kind and message of what is wrong with a pair; two empty strings if nothing is."""
    texts = (pair.source, pair.target)
    for language, text, other in zip(pair.languages, texts, reversed(texts), strict=True):
        kind, message = bad_text(text)
        if kind:
            beside = f" beside {other[:60]!r}" if kind == "empty side" else ""
            return kind, f"{language}: {message}{beside}"
    short, long = sorted(map(len, texts))
    if max_ratio is not None and long > max_ratio * short:
        message = f"{len(pair.source)} characters {pair.languages[0]}, {len(pair.target)} {pair.languages[1]}"
        return "length ratio", f"{message}, expected at most {max_ratio:g} times as many (dataset.max_ratio)"
    return "", ""


def _repeats(pairs: Sequence[Pair]) -> dict[int, Pair]:
    """Position of each pair that another split has too, and that other: train gives way to validation, both to test."""
    seen: dict[tuple[str, str], Pair] = {}
    found = {}
    for split in reversed(SPLITS):
        for i, pair in enumerate(pairs):
            if pair.split != split:
                continue
            key = pair.source, pair.target
            other = seen.get(key) if split == SPLITS[0] else seen.setdefault(key, pair)
            if other and other.split != split:
                found[i] = other
    return dict(sorted(found.items()))


def _in_two(pair: Pair, other: Pair) -> Problem:
    message = f"the same pair is in {other.split} too ({other.origin}), expected in one split alone"
    return Problem("in two splits", pair.origin, f"{message}: {pair.source[:40]!r}")


def _kept(pairs: Sequence[Pair], repeats: dict[int, Pair]) -> Iterator[str]:
    """What the log says of repeated pairs."""
    counts = Counter((pairs[i].split, other.split) for i, other in repeats.items())
    for (split, other), count in counts.items():
        yield f"{split}: {count} of its pairs in {other} too, word for word (kept: dataset.repeats=keep)"
    lines = [f"    {pairs[i].origin} = {other.origin}" for i, other in repeats.items()]
    yield from lines[:LISTED]
    if len(lines) > LISTED:
        yield f"    ... and {len(lines) - LISTED} more"


def _split(name: str, pairs: Sequence[Pair]) -> Split:
    chosen = [pair for pair in pairs if pair.split == name]
    return Split(
        name,
        [pair.id for pair in chosen],
        [pair.source for pair in chosen],
        [pair.target for pair in chosen],
        [pair.origin for pair in chosen],
        pairs[0].languages if pairs else ("", ""),
    )


def _fingerprint(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for name, split in splits.items():
        for record in zip(split.ids, split.sources, split.texts, strict=True):
            digest.update("\0".join((name, *record, "")).encode())
    return digest.hexdigest()


# --- tokens ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of both sides: one that serves both, or one each."""

    source: Any
    target: Any

    @property
    def source_size(self) -> int:
        return self.source.size

    @property
    def size(self) -> int:
        """Of the target's vocabulary, the boundary included."""
        return self.target.size

    def decode(self, ids: Iterable[int]) -> str:
        """The translation of these ids."""
        return self.target.decode(ids)

    def encoded(self, split: Split) -> tuple[Tokens, Tokens]:
        """Both sides of a split."""
        return Tokens.of(self.source.encode_batch(split.sources)), Tokens.of(self.target.encode_batch(split.texts))


def learn(run: Any, train: Split, folder: Path) -> None:
    """Learn the tokenizer of both languages, or one of each, from the training split into ``folder``."""
    if run.tokenizer.joint:
        run.tokenizer.learn([*train.sources, *train.texts], folder / "tokenizer")
        return
    for side, texts in zip(SIDES, (train.sources, train.texts), strict=True):
        (folder / "tokenizer" / side).mkdir(parents=True, exist_ok=True)
        run.tokenizer.learn(texts, folder / "tokenizer" / side)


def load(run: Any, folder: Path) -> Learned:
    """What :func:`learn` left."""
    if run.tokenizer.joint:
        both = run.tokenizer.load(folder / "tokenizer")
        known = Tokenizers(both, both)
    else:
        known = Tokenizers(*(run.tokenizer.load(folder / "tokenizer" / side) for side in SIDES))
    return Learned(known, run.features.load(folder / "features"), known.source_size, known.size)


def usable(run: Any, corpus: Corpus, learned: Learned) -> Corpus:
    """Second stage: hold every pair against the tokenizer.

    Raises:
        DataError: sentences of more than ``features.max_tokens`` tokens (or the model's ``max_positions``) or of none;
            a split that is left empty. Characters that the tokenizer lacks become a note.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    splits = {}
    for name, split in corpus.splits.items():
        splits[name], bad = fitting(run, split, learned)
        problems += bad
        notes += _unknown(split, learned.tokenizer)
    problems += empty_splits(splits, "pair", run.dataset)
    report = judge(problems, run.dataset.on_bad, "this tokenizer")
    return Corpus(splits, _fingerprint(splits), corpus.report + report + Report({}, [], tuple(notes)))


def fitting(run: Any, split: Split, learned: Learned) -> tuple[Split, list[Problem]]:
    """The pairs of which neither side has too many tokens or none, as tokens too, and the problems of the others.

    A translation that is not known may be empty.
    """
    limits = [(run.features.max_tokens, "features.max_tokens")]
    if positions := getattr(run.model, "max_positions", None):
        limits.append((positions - 1, "model.max_positions less the end"))
    most, named = min(limits)
    split = dataclasses.replace(split, tokens=learned.tokenizer.encoded(split))
    assert split.tokens is not None
    problems = {}
    for language, texts, tokens in zip(split.languages, (split.sources, split.texts), split.tokens, strict=True):
        for i in np.flatnonzero((tokens.lengths > most) | (tokens.lengths == 0)).tolist():
            if length := int(tokens.lengths[i]):
                message = f"{language}: {length} tokens, expected at most {most} ({named})"
                problems[i] = Problem("too long", split.origins[i], message)
            elif texts[i]:
                message = f"{language}: the tokenizer knows nothing of {texts[i][:60]!r}"
                problems[i] = Problem("no tokens", split.origins[i], message)
    kept = split.select([i for i in range(len(split)) if i not in problems]) if problems else split
    return kept, [problem for _, problem in sorted(problems.items())]


def _unknown(split: Split, tokenizers: Tokenizers) -> Iterator[str]:
    """A note for each side with characters that its tokenizer lacks."""
    both = zip(split.languages, (split.sources, split.texts), (tokenizers.source, tokenizers.target), strict=True)
    for language, texts, tokenizer in both:
        lacking = sorted(c for c in set().union(*texts) if tokenizer.unknown(c))
        if not lacking:
            continue
        pattern = re.compile("[" + "".join(map(re.escape, lacking)) + "]")
        count = sum(1 for text in texts if pattern.search(text))
        shown = ", ".join(f"{c!r} (U+{ord(c):04X} {unicodedata.name(c, 'no name')})" for c in lacking[:8])
        more = f" and {len(lacking) - 8} more" if len(lacking) > 8 else ""
        yield f"{split.name}: {count:,} {language} sentences have characters unknown to the tokenizer: {shown}{more}"


# --- batches ---------------------------------------------------------------------------------------------------------


def data(run: Any, split: Split, learned: Learned, training: bool) -> Data:
    """Batches of a split under a budget of tokens of the longer side, the end of a translation included."""
    source, tokens = split.tokens or learned.tokenizer.encoded(split)
    lengths = np.maximum(source.lengths, tokens.lengths + 1)
    return batched(run, split, Collator(source, tokens), lengths)


@dataclass(frozen=True)
class Collator:
    """Gathers the token ids of a batch. Nothing is drawn, so an epoch is like the next.

    Args:
        source: of every pair of a split.
        tokens: of its translation, without boundary.
        first: the position that the split's first pair is called by.
    """

    source: Tokens
    tokens: Tokens
    first: int = 0

    def known(self, positions: np.ndarray) -> Batch:
        places = (positions - self.first).tolist()
        both = (("source_lengths", self.source), ("token_lengths", self.tokens))
        lengths = {name: np.array([len(side[i]) for i in places], np.int64) for name, side in both}
        return {"example": np.asarray(positions, np.int64), **lengths}

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        here, there = widths(whole, "source_lengths", "token_lengths")
        places = (positions - self.first).tolist()
        source, source_lengths = pad([self.source[i] for i in places], np.int32, here)
        tokens, token_lengths = pad([self.tokens[i] for i in places], np.int32, there)
        return {
            "example": np.asarray(positions, np.int64),
            "source": source,
            "source_lengths": source_lengths,
            "tokens": tokens,
            "token_lengths": token_lengths,
        }


# --- what a user gives -----------------------------------------------------------------------------------------------

ANSWER = "{hypothesis}"  # a line of what toolkit.cli.predict prints


def given(run: Any, inputs: Sequence[str], learned: Learned) -> Given:
    """Lines to be translated; a blank one is translated by a blank one, so that line n answers line n.

    Args:
        run: the run's specs.
        inputs: each a file of lines, "-" for standard input, or else a line itself.
        learned: what the run learned.
    """
    problems: list[Problem] = []
    lines: list[tuple[str, str]] = []  # where, text
    for number, text in enumerate(inputs, 1):
        found, where = _given_lines(text, number)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            lines += [(f"{where}, line {n}" if where else f"input {number}", line) for n, line in enumerate(found, 1)]
    sound = []
    blank = {origin for origin, text in lines if not clean(text)}
    for origin, text in lines:
        kind, message = bad_text(text)
        if not kind:
            sound.append((origin, clean(text)))
        elif origin not in blank:
            problems.append(Problem(kind, origin, message))
    origins = [origin for origin, _ in sound]
    languages = run.dataset.source or "source", run.dataset.target or "target"
    split = Split("given", origins, [text for _, text in sound], [""] * len(sound), origins, languages)
    split, bad = fitting(run, split, learned)
    answered = blank.union(split.ids)
    places = enumerate(origin for origin, _ in lines if origin in answered)
    return Given(split, problems + bad, tuple((i, origin) for i, origin in places if origin in blank))


def _given_lines(text: str, number: int) -> tuple[list[str] | Problem, str]:
    """The lines that an input stands for, and the name of the file that they are from."""
    if text == "-":
        return split_lines(sys.stdin.buffer.read(), "standard input"), "standard input"
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # longer than a name can be, or with a NUL
        is_file = False
    return (read_lines(Path(text), text), text) if is_file else ([text], "")
