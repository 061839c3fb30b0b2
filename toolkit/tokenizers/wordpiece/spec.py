"""Tokenizer ``wordpiece``: sub-words learned from the training split and matched longest first (Wu et al. 2016).

A piece that begins a word starts with ``▁``, as in their section 4.1; BERT instead marks the pieces that continue a
word by ``##``. So spaces are parts of pieces, punctuation keeps its place, and :meth:`WordPieceTokenizer.decode` is
exact: the tokenizer does not lower detokenised BLEU.

The steps of tokenization:

1. Lower-case the text, with ``lowercase``, and normalise it to Unicode NFC.
2. Collapse runs of spaces (``▁`` counts as a space) and put ``▁`` in front of every word.
3. Split words around every character that is not a letter, digit, mark or joiner: ``▁("Hi!")`` gives ``▁(``, ``"``,
   ``Hi``, ``!``, ``"``, ``)``. The set of these characters is learned from the training split and stored, so that no
   library's version matters.
4. Spell each part by repeatedly taking the longest piece that fits. Every character of the training split is a piece;
   a run of other characters is one unknown token.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from toolkit.config.spec import option, spec
from toolkit.errors import DataError, reading

FILE = "wordpiece.json"
BLANK, UNKNOWN = 0, 1
SPECIAL = ("< blank >", "<unk>")  # no text can contain the first, because of its spaces; "<unk>" cannot have another id
SPACE = "▁"
REPLACEMENT = "⁇"  # decoded form of an unknown token
NUL = "\0"  # ends a string in some of TensorFlow's C++, so neither it nor its stand-in can be a piece
STAND_IN = "\uffff"  # a noncharacter of Unicode
CACHED = 1 << 16  # words whose pieces are cached


def normal(text: str, lowercase: bool) -> str:
    """Normalise a text (steps 1 and 2)."""
    text = unicodedata.normalize("NFC", text.lower() if lowercase else text)
    return "".join(SPACE + word for word in re.split(f"[ {SPACE}]+", text) if word)


def known(letters: str, symbols: str) -> str:
    """Return a regular expression for a part of known characters (step 3); the arguments are put in brackets.

    A space, which no text has after step 2, keeps the brackets from being empty.
    """
    return f"({SPACE}?[ {letters}]+|{SPACE}?[ {symbols}]|{SPACE})"


def parts(pattern: re.Pattern[str], text: str) -> list[str]:
    """Split a text into parts (step 3); the text between matches is unknown."""
    return [part for part in pattern.split(text) if part]


class WordPieceTokenizer:
    """Converter of text to ids and back.

    Id 0 is the boundary of translations and the CTC blank, which no text contains; id 1 is the unknown token, for
    characters that the pieces cannot spell, and is decoded as ``⁇``.

    Args:
        pieces: by id; the first two are special.
        symbols: the characters that form parts of their own in step 3.
        lowercase: lower-case the text.
    """

    def __init__(self, pieces: Sequence[str], symbols: str, lowercase: bool) -> None:
        self.pieces = list(pieces)
        self.lowercase = lowercase
        self.size = len(self.pieces)
        self.symbols = symbols
        self.letters = "".join(sorted({p for p in pieces if len(p) == 1} - {SPACE, *symbols}))
        self._known = re.compile(known(re.escape(self.letters), re.escape(symbols)))
        self._ids = {piece: i for i, piece in enumerate(pieces) if i not in (BLANK, UNKNOWN)}
        self._longest = max(map(len, self._ids), default=1)
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of the pieces."""
        ids: list[int] = []
        for part in parts(self._known, normal(text, self.lowercase)):
            piece_ids = self._cache.get(part)
            if piece_ids is None:
                piece_ids = self._spell(part)
                if len(self._cache) < CACHED:
                    self._cache[part] = piece_ids
            ids += piece_ids
        return ids

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Encode each text."""
        return [self.encode(text) for text in texts]

    def _spell(self, part: str) -> list[int]:
        """Spell a part (step 4), completely or not at all: its characters are all known or all unknown."""
        ids: list[int] = []
        start = 0
        while start < len(part):
            end = min(start + self._longest, len(part))
            while end > start and part[start:end] not in self._ids:
                end -= 1
            if end == start:
                return [UNKNOWN]
            ids.append(self._ids[part[start:end]])
            start = end
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of these ids; blanks are skipped."""
        pieces = (REPLACEMENT if i == UNKNOWN else self.pieces[i] for i in map(int, ids) if i != BLANK)
        return "".join(pieces).replace(SPACE, " ").removeprefix(" ")

    def unknown(self, text: str) -> list[str]:
        """List the characters of ``text`` that the pieces cannot spell, each once, in order."""
        return [c for c in dict.fromkeys(normal(text, self.lowercase)) if c not in self._ids]


@spec
class WordPiece:
    """WordPiece (Schuster and Nakajima 2012; Wu et al. 2016, section 4.1), learned by the library ``tokenizers``.

    Every character of the training split is a piece. The library merges pairs by frequency, in its WordPiece trainer as
    in its BPE trainer. It numbers ``##`` pieces in an order that varies between runs, which can decide between pairs of
    equal frequency; without ``##`` the result is reproducible.
    """

    column: ClassVar[str] = "text"

    vocab_size: int = option(
        8000,
        "number of pieces, including the boundary and the unknown token; more than the data supports is refused",
        ge=3,
    )
    lowercase: bool = option(False, "lower-case all text, and thus all translations")
    joint: bool = option(True, "translation: one vocabulary for both languages; false: one for each")

    def learn(self, texts: Iterable[str], folder: Path) -> None:
        """Learn the pieces of ``texts`` and write them into ``folder``.

        Raises:
            DataError: ``vocab_size`` is less than the characters need or more than the texts give.
        """
        lines = [normal(text, self.lowercase) for text in texts]
        characters = sorted(set().union(*lines) - {SPACE, NUL, STAND_IN})
        symbols = "".join(c for c in characters if not _in_words(c))
        letters = "".join(c for c in characters if _in_words(c))
        pattern = re.compile(known(re.escape(letters), re.escape(symbols)))
        problem = f"tokenizer.vocab_size: found {self.vocab_size}; the training split"
        least = len(characters) + len(SPECIAL) + 1
        if self.vocab_size < least:
            raise DataError(f"{problem}'s characters need {least} pieces: set it to a value >= {least}")
        pieces = _learn((pattern.findall(line) for line in lines), self.vocab_size)
        if (most := len(pieces)) < self.vocab_size:
            raise DataError(f"{problem} gives no more than {most} pieces: set it to a value <= {most}")
        state = {"lowercase": self.lowercase, "symbols": symbols, "pieces": pieces}
        (folder / FILE).write_text(json.dumps(state, ensure_ascii=False, indent=0) + "\n", "utf-8")

    def load(self, folder: Path) -> WordPieceTokenizer:
        """Load the tokenizer that :meth:`learn` wrote into ``folder``.

        Raises:
            DataError: it is missing or damaged.
        """
        path = folder / FILE
        with reading(path, "pieces"):
            state = json.loads(path.read_text("utf-8"))
            pieces, symbols, lowercase = state["pieces"], state["symbols"], state["lowercase"]
        valid = isinstance(pieces, list) and all(isinstance(piece, str) and piece for piece in pieces)
        valid = valid and pieces[:2] == list(SPECIAL) and len(set(pieces)) == len(pieces)
        spelled = valid and isinstance(symbols, str) and {SPACE, *symbols, *"".join(pieces[2:])} <= set(pieces)
        if not spelled or not isinstance(lowercase, bool):
            raise DataError(
                f"{path}: expected distinct pieces that include every character, plus symbols and lowercase"
            )
        return WordPieceTokenizer(pieces, symbols, lowercase)


def _in_words(character: str) -> bool:
    """Return True for letters, marks and digits, and for format characters, which join or separate letters in words."""
    category = unicodedata.category(character)
    return category[0] in "LMN" or category == "Cf"


def _learn(lines: Iterable[list[str]], size: int) -> list[str]:
    """Learn at most ``size`` pieces from lines that are split into parts; return them by id."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL[UNKNOWN]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=[SPACE],
        continuing_subword_prefix="",
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(" ".join, lines), trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)
