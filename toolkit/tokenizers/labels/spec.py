"""Names of classes as tokens."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from toolkit.config.spec import spec
from toolkit.errors import DataError, reading

FILE = "classes.json"


class LabelTokenizer:
    """A class's name to its id and back. Names are brought to Unicode NFC first.

    Args:
        classes: the names; the i-th has id i.
    """

    def __init__(self, classes: Iterable[str]) -> None:
        self.classes = list(classes)
        self.size = len(self.classes)
        self._ids = {name: i for i, name in enumerate(self.classes)}

    def encode(self, text: str) -> list[int]:
        """The id of the class, alone in a list; nothing for a name that is not among the classes."""
        name = unicodedata.normalize("NFC", text)
        return [self._ids[name]] if name in self._ids else []

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """:meth:`encode` of each."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The names of these ids, one of them as a rule."""
        return ", ".join(self.classes[i] for i in ids)

    def unknown(self, text: str) -> list[str]:
        """The name, if it is not among the classes."""
        return [] if self.encode(text) else [unicodedata.normalize("NFC", text)]


@spec
class Labels:
    """Every class of the training split has an id, from 0: numbers in their order, then other names in theirs."""

    domains: ClassVar[tuple[str, ...]] = ("images",)

    def learn(self, texts: Iterable[str], folder: Path) -> None:
        """Write the classes of ``texts`` into ``folder``."""
        classes = sorted({unicodedata.normalize("NFC", text) for text in texts}, key=_order)
        (folder / FILE).write_text(json.dumps({"classes": classes}, ensure_ascii=False) + "\n", "utf-8")

    def load(self, folder: Path) -> LabelTokenizer:
        """The tokenizer that :meth:`learn` left in ``folder``.

        Raises:
            DataError: there is none, or it is damaged.
        """
        path = folder / FILE
        with reading(path, "classes"):
            classes = json.loads(path.read_text("utf-8"))["classes"]
        if not isinstance(classes, list) or not all(isinstance(c, str) and c for c in classes) or _repeated(classes):
            raise DataError(f"{path}: expected different names of classes")
        return LabelTokenizer(classes)


def _order(name: str) -> tuple[bool, int, str]:
    number = int(name) if name.isdecimal() else None
    return number is None, number or 0, name


def _repeated(names: list[str]) -> bool:
    return len(set(names)) < len(names)
