"""``dataset=number_words``: the whole numbers below a thousand, written out in English."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from text_to_number.number import Number
from toolkit.config.spec import option, spec
from toolkit.data.columns.column import Column
from toolkit.data.columns.text import Text, TextFields
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.data.source import Source

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@spec
class NumberWords(Source, TextFields):
    """Numbers in words: "two hundred forty one" is 241. One in ten is for validation, one in ten for the test."""

    columns: ClassVar[Mapping[str, type[Column[Any]]]] = {"text": Text, "number": Number}

    below: int = option(1000, "first number that is left out", ge=100, le=1000)

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        for number in range(self.below):
            split = {0: "validation", 1: "test"}.get(zlib.crc32(str(number).encode()) % 10, "train")
            yield Example(str(number), split, {"text": words(number), "number": number}, f"number {number}")


def words(number: int) -> str:
    """Write out a number from 0 to 999."""
    if number >= 100:
        rest = f" {words(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number >= 20:
        rest = f" {ONES[number % 10]}" if number % 10 else ""
        return TENS[number // 10 - 2] + rest
    return (*ONES, *TEENS)[number]
