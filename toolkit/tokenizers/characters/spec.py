"""Tokenizer ``characters``: every character is a token."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from toolkit.config.spec import spec
from toolkit.errors import DataError, reading

FILE = "alphabet.json"


class CharacterTokenizer:
    """Converter of text to ids and back. Text is normalised to Unicode NFC, so an accented letter is one token.

    Args:
        alphabet: the characters; the i-th has id i + 1, since id 0 is the CTC blank.
    """

    def __init__(self, alphabet: Iterable[str]) -> None:
        self.alphabet = list(alphabet)
        self.size = len(self.alphabet) + 1
        self._ids = {character: i for i, character in enumerate(self.alphabet, 1)}

    def encode(self, text: str) -> list[int]:
        """Return the ids of the characters; characters outside the alphabet are skipped (see :meth:`unknown`)."""
        return [self._ids[c] for c in unicodedata.normalize("NFC", text) if c in self._ids]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Encode each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of these ids; blanks are skipped."""
        return "".join(self.alphabet[i - 1] for i in ids if i > 0)

    def unknown(self, text: str) -> list[str]:
        """List the characters of ``text`` that the alphabet lacks, each once, in order."""
        return list(dict.fromkeys(c for c in unicodedata.normalize("NFC", text) if c not in self._ids))


@spec
class Characters:
    """Every character of the training split is a token, in the order of code points after a blank with id 0."""

    column: ClassVar[str] = "text"
    joint: ClassVar[bool] = True

    def learn(self, texts: Iterable[str], folder: Path) -> None:
        """Write the alphabet of ``texts`` into ``folder``."""
        alphabet = sorted({c for text in texts for c in unicodedata.normalize("NFC", text)})
        (folder / FILE).write_text(json.dumps({"alphabet": alphabet}, ensure_ascii=False) + "\n", "utf-8")

    def load(self, folder: Path) -> CharacterTokenizer:
        """Load the tokenizer that :meth:`learn` wrote into ``folder``.

        Raises:
            DataError: it is missing or damaged.
        """
        path = folder / FILE
        with reading(path, "alphabet"):
            alphabet = json.loads(path.read_text("utf-8"))["alphabet"]
        valid = isinstance(alphabet, list) and all(isinstance(c, str) and len(c) == 1 for c in alphabet)
        if not valid or len(set(alphabet)) != len(alphabet):
            raise DataError(f"{path}: expected different single characters")
        return CharacterTokenizer(alphabet)
