"""Characters as tokens."""

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
    """Text to ids and back. Text is brought to Unicode NFC first, so that an accented letter is one token.

    Args:
        alphabet: the characters; the i-th has id i + 1, for id 0 is the CTC blank.
    """

    def __init__(self, alphabet: Iterable[str]) -> None:
        self.alphabet = list(alphabet)
        self.size = len(self.alphabet) + 1
        self._ids = {character: i for i, character in enumerate(self.alphabet, 1)}

    def encode(self, text: str) -> list[int]:
        """Ids of the characters; one that the alphabet lacks is left out (:meth:`unknown` names it)."""
        return [self._ids[c] for c in unicodedata.normalize("NFC", text) if c in self._ids]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """:meth:`encode` of each."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; blanks give nothing."""
        return "".join(self.alphabet[i - 1] for i in ids if i > 0)

    def unknown(self, text: str) -> list[str]:
        """The characters of ``text`` that the alphabet lacks, each once, in their order."""
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
        """The tokenizer that :meth:`learn` left in ``folder``.

        Raises:
            DataError: there is none, or it is damaged.
        """
        path = folder / FILE
        with reading(path, "alphabet"):
            alphabet = json.loads(path.read_text("utf-8"))["alphabet"]
        sound = isinstance(alphabet, list) and all(isinstance(c, str) and len(c) == 1 for c in alphabet)
        if not sound or len(set(alphabet)) != len(alphabet):
            raise DataError(f"{path}: expected different single characters")
        return CharacterTokenizer(alphabet)
