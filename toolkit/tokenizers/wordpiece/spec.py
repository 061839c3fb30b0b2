"""Sub-words learned from the training split and matched longest first: WordPiece as Wu et al. (2016) translate with it.

A piece that begins a word carries ``▁``, as in their section 4.1, where BERT marks the pieces that continue one by
``##``. So a space is part of a piece, punctuation keeps its place, and :meth:`WordPieceTokenizer.decode` is exact:
detokenised BLEU loses nothing to the tokenizer.

Text goes through these steps:

1. lower case, if asked for, then Unicode NFC;
2. runs of spaces (and of ``▁``, which counts as one) become one; ``▁`` goes in front of every word;
3. words are cut around what is no letter, digit, mark or joiner: ``▁("Hi!")`` gives ``▁(``, ``"``, ``Hi``, ``!``,
   ``"``, ``)``; which characters these are is learned from the training split and kept, so that no library's version
   matters;
4. each part is spelled by the longest piece that fits, again and again; every character of the training split is a
   piece, and a run of others is one unknown.
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
SPECIAL = ("< blank >", "<unk>")  # the space keeps the first out of reach of any text; nor can "<unk>" give another id
SPACE = "▁"
REPLACEMENT = "⁇"  # what an unknown is decoded as
NUL = "\0"  # ends a string in some of TensorFlow's C++, so neither it nor what stands in for it there can be a piece
STAND_IN = "\uffff"  # no character, by Unicode's own word
REMEMBERED = 1 << 16  # words whose pieces are kept


def normal(text: str, lowercase: bool) -> str:
    """Steps 1 and 2."""
    text = unicodedata.normalize("NFC", text.lower() if lowercase else text)
    return "".join(SPACE + word for word in re.split(f"[ {SPACE}]+", text) if word)


def known(letters: str, symbols: str) -> str:
    """Step 3: a regular expression for a part of known characters; the arguments stand inside of brackets.

    A space, which no text has after step 2, keeps the brackets from being empty.
    """
    return f"({SPACE}?[ {letters}]+|{SPACE}?[ {symbols}]|{SPACE})"


def parts(pattern: re.Pattern[str], text: str) -> list[str]:
    """Step 3. What is between known parts is unknown."""
    return [part for part in pattern.split(text) if part]


class WordPieceTokenizer:
    """Text to ids and back.

    Id 0 is the boundary of translations and the blank of CTC, which no text gives; id 1 stands for what the pieces
    cannot spell and is decoded as ``⁇``.

    Args:
        pieces: by id; the first two are special.
        symbols: the characters that stand alone.
        lowercase: whether text is brought to lower case.
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
        self._remembered: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces."""
        ids: list[int] = []
        for part in parts(self._known, normal(text, self.lowercase)):
            found = self._remembered.get(part)
            if found is None:
                found = self._spell(part)
                if len(self._remembered) < REMEMBERED:
                    self._remembered[part] = found
            ids += found
        return ids

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """:meth:`encode` of each."""
        return [self.encode(text) for text in texts]

    def _spell(self, part: str) -> list[int]:
        """Step 4. A part is spelled whole or not at all: its characters are all known or all unknown."""
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
        """The text of these ids; blanks give nothing."""
        pieces = (REPLACEMENT if i == UNKNOWN else self.pieces[i] for i in map(int, ids) if i != BLANK)
        return "".join(pieces).replace(SPACE, " ").removeprefix(" ")

    def unknown(self, text: str) -> list[str]:
        """The characters of ``text`` that the pieces cannot spell, each once, in their order."""
        return [c for c in dict.fromkeys(normal(text, self.lowercase)) if c not in self._ids]


@spec
class WordPiece:
    """WordPiece (Schuster and Nakajima 2012; Wu et al. 2016, section 4.1), learned by the library ``tokenizers``.

    Every character of the training split is among the pieces. The library merges pairs by frequency, as its trainers of
    WordPiece and of BPE both do. It numbers ``##`` pieces in an order that changes from run to run, which can decide
    between pairs of equal frequency; without ``##`` what it learns is always the same.
    """

    column: ClassVar[str] = "text"

    vocab_size: int = option(
        8000, "pieces, the boundary and the unknown included; more than the data holds is refused", ge=3
    )
    lowercase: bool = option(False, "bring all text to lower case, which translations then are in as well")
    joint: bool = option(True, "translation: one vocabulary for both languages, else one each")

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
        """The tokenizer that :meth:`learn` left in ``folder``.

        Raises:
            DataError: there is none, or it is damaged.
        """
        path = folder / FILE
        with reading(path, "pieces"):
            state = json.loads(path.read_text("utf-8"))
            pieces, symbols, lowercase = state["pieces"], state["symbols"], state["lowercase"]
        sound = isinstance(pieces, list) and all(isinstance(piece, str) and piece for piece in pieces)
        sound = sound and pieces[:2] == list(SPECIAL) and len(set(pieces)) == len(pieces)
        spelled = sound and isinstance(symbols, str) and {SPACE, *symbols, *"".join(pieces[2:])} <= set(pieces)
        if not spelled or not isinstance(lowercase, bool):
            raise DataError(f"{path}: expected different pieces, every character of them, symbols and lowercase")
        return WordPieceTokenizer(pieces, symbols, lowercase)


def _in_words(character: str) -> bool:
    """Letters, marks, digits, and format characters, which join or part letters inside of words."""
    category = unicodedata.category(character)
    return category[0] in "LMN" or category == "Cf"


def _learn(lines: Iterable[list[str]], size: int) -> list[str]:
    """At most ``size`` pieces, by id, of lines that are cut into parts."""
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
