"""Text: sentences, checked, and as token ids once a tokenizer is learned."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from toolkit.config.paths import expand
from toolkit.config.spec import option, spec
from toolkit.data.batch import Batch, Fields, pad, widths
from toolkit.data.columns.column import (
    Column,
    Decoded,
    Flaw,
    Lengths,
    Limit,
    Question,
    Role,
    Shortened,
    absent,
    selected,
)
from toolkit.data.description import SPREAD, Counts, Description, Histogram, spread
from toolkit.data.example import Sentence
from toolkit.data.files import has_content
from toolkit.data.normalize import STEPS, normalize, plain
from toolkit.data.normalize import problems as bad_steps
from toolkit.data.problems import Problem
from toolkit.data.sources.lines import BOM, read_lines, stream_lines

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

FIELDS: dict[Role, Fields] = {
    "input": {
        "source": (("batch", "source"), np.int32),  # token ids
        "source_lengths": (("batch",), np.int32),
    },
    "target": {
        "tokens": (("batch", "tokens"), np.int32),  # without the boundary at the end
        "token_lengths": (("batch",), np.int32),
    },
}
SHOWN = 8  # unknown characters named in a note
# Characters that no text should have: control characters except tab, line feed and a carriage return that ends a line;
# lone surrogates (which stand for bytes that are not UTF-8); a byte-order mark; and the replacement character.
FOREIGN = re.compile(f"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff{BOM}\N{REPLACEMENT CHARACTER}]|\r(?!\n)")


def without_tokens(values: TextValues) -> Iterator[Flaw]:
    """Yield the texts of which the tokenizer knows nothing."""
    assert values.tokens is not None
    for i in np.flatnonzero(values.tokens.lengths == 0).tolist():
        yield Flaw(i, "no tokens", values.said(f"the tokenizer has no token for {values.texts[i][:60]!r}"))


@spec
class TextFields:
    """Fields of a dataset that has text."""

    transcribed: ClassVar[bool] = False  # the texts are transcripts of speech

    max_tokens: int | None = option(None, "longest text, in tokens; a longer one is bad; null: no bound", ge=1)
    normalize: tuple[str, ...] = option(
        (),
        f"steps that change every text, and the answers before they are scored, in this order: {', '.join(STEPS)} "
        "(toolkit/data/normalize.py)",
    )


class LearnedTokenizer(Protocol):
    """The contract of a learned tokenizer: text to token ids and back."""

    size: int

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def unknown(self, text: str) -> list[str]: ...


@dataclass(frozen=True)
class Tokens:
    """Token ids of many sentences, concatenated: a loader's worker processes receive two arrays instead of a list.

    Args:
        values: ``(all tokens,)`` int32.
        ends: ``(sentences,)`` int64, the end of each in ``values``.
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
        """Return only the sentences at these positions, in ascending order."""
        lengths = self.lengths
        mask = np.zeros(len(lengths), np.bool_)
        mask[list(kept)] = True
        return Tokens(self.values[np.repeat(mask, lengths)], np.cumsum(lengths[mask]))

    def cut(self, most: int) -> Tokens:
        """Return only the first ``most`` tokens of each sentence."""
        lengths = self.lengths
        places = np.arange(len(self.values)) - np.repeat(self.ends - lengths, lengths)
        return Tokens(self.values[places < most], np.cumsum(np.minimum(lengths, most)))


@dataclass(frozen=True)
class TextValues:
    """Texts of a split.

    Args:
        texts: the cleaned texts.
        language: their language, as the data names it; empty if it is not named.
        tokens: their token ids, once a tokenizer is learned.
    """

    texts: list[str]
    language: str = ""
    tokens: Tokens | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def header(self) -> str:
        return ""

    @property
    def records(self) -> Sequence[str]:
        return self.texts

    @property
    def references(self) -> Sequence[str]:
        """The expected answers."""
        return self.texts

    def describe(self) -> str:
        return self.language

    def said(self, message: str) -> str:
        """Return a message about one of the texts, begun by the language if it is known."""
        return f"{self.language}: {message}" if self.language else message

    def select(self, kept: Sequence[int]) -> TextValues:
        return selected(self, kept, tokens=self.tokens and self.tokens.select(kept))


@dataclass(frozen=True)
class TextBatcher:
    """Token ids of a batch.

    Args:
        tokens: of every text of the split, without boundary.
        role: selects the names of the fields.
    """

    tokens: Tokens
    role: Role

    @property
    def fields(self) -> Fields:
        return FIELDS[self.role]

    def lengths(self, places: np.ndarray) -> Batch:
        _, lengths = FIELDS[self.role]
        return {lengths: np.array([len(self.tokens[i]) for i in places.tolist()], np.int64)}

    def collate(self, places: np.ndarray, whole: Batch | None) -> Batch:
        ids, lengths = FIELDS[self.role]
        (longest,) = widths(whole, lengths)
        values, counts = pad([self.tokens[i] for i in places.tolist()], np.int32, longest)
        return {ids: values, lengths: counts}

    def augment(self, batch: Batch, positions: np.ndarray, epoch: int) -> Batch:
        return {}


class Text(Column[TextValues]):
    """Sentences, as token ids of the run's tokenizer."""

    kind: ClassVar[str] = "text"
    noun: ClassVar[str] = "text"
    group: ClassVar[Literal["features", "tokenizer"] | None] = "tokenizer"
    precedence: ClassVar[int] = 1
    answer: ClassVar[str] = "{hypothesis}"

    dataset: Any  # has TextFields
    component: Any  # the run's tokenizer

    @property
    def folder(self) -> str:
        """The folder of one vocabulary for all text columns, or of one for each."""
        return "tokenizer" if self.component.joint else f"tokenizer/{self.name}"

    def check(self, value: object) -> tuple[object, str, str]:
        """Check a string or a :class:`Sentence`, and clean it."""
        sentence = value if isinstance(value, Sentence) else Sentence("" if absent(value) else str(value), "")
        kind, message = bad_text(sentence.text)
        if kind:
            return value, kind, f"{sentence.language}: {message}" if sentence.language else message
        text = self.comparable(sentence.text)
        if not text:
            steps = ", ".join(self.dataset.normalize)
            return value, "empty text", f"nothing is left of {sentence.text[:60]!r} after dataset.normalize=[{steps}]"
        return Sentence(text, sentence.language), "", ""

    def comparable(self, answer: str) -> str:
        """Clean and normalise a text."""
        text = clean(answer)
        return clean(normalize(text, self.dataset.normalize)) if self.dataset.normalize else text

    def excerpt(self, value: object) -> str:
        return f"{value.language}: {value.text[:60]!r}" if isinstance(value, Sentence) and value.language else ""

    def decode(
        self, values: Sequence[Sentence], wheres: Sequence[str], cache: Path | None, progress: Bars
    ) -> Decoded[TextValues]:
        language = values[0].language if values else ""
        return Decoded(TextValues([value.text for value in values], language), range(len(values)), [])

    def learn(self, values: Sequence[TextValues], folder: Path) -> None:
        self.component.learn([text for part in values for text in part.texts], folder)

    def load(self, folder: Path) -> LearnedTokenizer:
        return self.component.load(folder)

    def size(self, learned: LearnedTokenizer) -> int:
        return learned.size

    def encode(self, values: TextValues, learned: LearnedTokenizer) -> TextValues:
        return values if values.tokens else replace(values, tokens=Tokens.of(learned.encode_batch(values.texts)))

    def unfit(self, values: TextValues, learned: LearnedTokenizer) -> Iterator[Flaw]:
        assert values.tokens is not None
        lengths, longest = values.tokens.lengths, self.dataset.max_tokens
        if longest is not None:
            for i in np.flatnonzero(lengths > longest).tolist():
                message = f"{lengths[i]} tokens, expected at most {longest} (dataset.max_tokens)"
                yield Flaw(i, "too long", values.said(message))
        if self.role == "input":  # which targets may be without tokens is the task's matter
            yield from without_tokens(values)

    @classmethod
    def conflicts(cls, dataset: Any) -> Iterator[tuple[str, str]]:
        for message in bad_steps(dataset.normalize):
            yield "normalize", message

    def notes(self, values: TextValues, learned: LearnedTokenizer) -> Iterator[str]:
        """Yield lines about the form of transcripts and about the characters that the tokenizer lacks."""
        if self.dataset.transcribed and len(values):
            yield from self._form(values.texts)
        unknown = sorted(c for c in set().union(*values.texts) if learned.unknown(c))
        if unknown:
            pattern = re.compile("[" + "".join(map(re.escape, unknown)) + "]")
            count = sum(1 for text in values.texts if pattern.search(text))
            listing = ", ".join(f"{c!r} (U+{ord(c):04X} {unicodedata.name(c, 'no name')})" for c in unknown[:SHOWN])
            more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
            language = f"{values.language} " if values.language else ""
            yield f"{count:,} {language}texts have characters unknown to the tokenizer: {listing}{more}"

    def _form(self, texts: Sequence[str]) -> Iterator[str]:
        """Yield a line that says how transcripts were normalised, or that they were not."""
        if self.dataset.normalize:
            yield f"{len(texts):,} transcripts, normalised by {', '.join(self.dataset.normalize)}"
        elif formatted := sum(text != plain(text.lower()) for text in texts):
            yield (
                f"{formatted:,} of {len(texts):,} transcripts have capitals or punctuation, which the model learns to "
                "write; dataset.normalize=[lower,punctuation] removes them"
            )

    def describe(self, values: TextValues, learned: LearnedTokenizer) -> Description:
        """Describe lengths and characters."""
        assert values.tokens is not None
        tokens = values.tokens.lengths
        words = np.array([len(text.split()) for text in values.texts])
        characters = Counter(chain.from_iterable(values.texts)).most_common()
        language = (("language", values.language),) if values.language else ()
        facts = (
            ("words", f"{words.sum():,}"),
            (f"words of a text, {SPREAD}", spread(words)),
            (f"tokens of a text, {SPREAD}", spread(tokens)),
            ("vocabulary", f"{learned.size:,} tokens"),
            ("different characters", f"{len(characters):,}"),
        )
        counts = Counts("characters", {visible(character): count for character, count in characters})
        sizes = Histogram("tokens of a text", "tokens", tokens)
        return Description((*language, *facts), sizes, (Histogram("words of a text", "words", words),), (counts,))

    def lengths(self, values: TextValues) -> Lengths:
        """Return the numbers of tokens; those of a target include its end."""
        assert values.tokens is not None
        return Lengths(values.tokens.lengths + (self.role == "target"))

    def fields(self) -> Fields:
        return FIELDS[self.role]

    def batcher(self, values: TextValues, learned: LearnedTokenizer, seed: int | None) -> TextBatcher:
        assert values.tokens is not None
        return TextBatcher(values.tokens, self.role)

    def questions(self, inputs: Iterable[str]) -> Iterator[Question | Problem]:
        """Yield the lines of each input: a file, "-" for standard input, or a line itself."""
        for number, text in enumerate(inputs, 1):
            lines, where = _input_lines(text)
            if isinstance(lines, Problem):
                yield lines
                continue
            for n, line in enumerate(lines, 1):
                origin = f"{where}, line {n}" if where else f"input {number}"
                yield Question(origin, line, blank=not clean(line))

    def shorten(self, values: TextValues, limit: Limit | None, pieces: bool) -> Shortened[TextValues]:
        """Cut the tokens of long texts."""
        assert values.tokens is not None
        own = Limit(self.dataset.max_tokens, "dataset.max_tokens") if self.dataset.max_tokens else None
        limits = [one for one in (own, limit) if one]
        if not limits:
            return Shortened(values, range(len(values)))
        least = min(limits, key=lambda limit: limit.size)
        lengths = values.tokens.lengths
        notes = [
            (i, f"{lengths[i]} tokens, cut to the first {least.size} ({least.field})")
            for i in np.flatnonzero(lengths > least.size).tolist()
        ]
        short = replace(values, tokens=values.tokens.cut(least.size)) if notes else values
        return Shortened(short, range(len(values)), notes)


def clean(text: str) -> str:
    """Normalise a text to Unicode NFC, with single spaces for runs of white space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def visible(character: str) -> str:
    """Return a character, or its name if it cannot be seen by itself: a space, a combining accent."""
    if character.isprintable() and not character.isspace() and not unicodedata.combining(character):
        return character
    return unicodedata.name(character, f"U+{ord(character):04X}")


def bad_text(text: str) -> tuple[str, str]:
    """Return kind and message of a text's flaw; two empty strings if there is none."""
    if not text or text.isspace():
        return "empty text", "found no text"
    if not (match := FOREIGN.search(text)):
        return "", ""
    character, place = match[0], f"character {match.start() + 1} of {text[:40]!r}"
    if "\udc80" <= character <= "\udcff":
        return "not UTF-8", f"byte 0x{ord(character) - 0xDC00:02x} at {place} is not UTF-8; save the file as UTF-8"
    if character == BOM:
        return "byte-order mark", f"found U+FEFF at {place}, expected only at the start of a file"
    if character == "\N{REPLACEMENT CHARACTER}":
        return "lost character", f"found U+FFFD at {place}: was the file decoded with the wrong encoding?"
    name = " (a carriage return that ends no line)" if character == "\r" else ""
    return "control character", f"found U+{ord(character):04X}{name} at {place}, expected text"


def _input_lines(text: str) -> tuple[Iterable[str] | Problem, str]:
    """Return the lines of an input, or the problem with them, and the name of their file."""
    if text == "-":
        return stream_lines(sys.stdin.buffer, "standard input"), "standard input"
    path = Path(expand(text))
    try:
        is_file = has_content(path.stat())
    except (OSError, ValueError):  # a text
        is_file = False
    return (read_lines(path, text), text) if is_file else ([text], "")
