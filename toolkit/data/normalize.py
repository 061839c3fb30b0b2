"""Normalisation of text by named steps, for training and scoring alike.

A step is a name, or a name with a language: ``lower``, ``numbers:de``. They are applied in their order:

- ``lower``: lower case.
- ``punctuation``: write typographic apostrophes as ``'``, and replace everything but letters, marks, digits and
  apostrophes by a space.
- ``nfkc``: Unicode form NFKC, which joins compatible characters: full-width to ASCII, ligatures to letters. All text is
  in NFC without it.
- ``numbers:LANGUAGE``: write whole numbers in words, by num2words; one that it cannot write stays.
- ``whisper``, ``whisper:en``: the normalisers of Radford et al. 2022, appendix C, by whisper-normalizer; the second one
  spells English numbers, contractions and British words alike.
"""

from __future__ import annotations

import contextlib
import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from toolkit.config.process import install

NUMBER = re.compile(r"\d+")
STEPS = ("lower", "punctuation", "nfkc", "whisper", "whisper:en", "numbers:LANGUAGE")


def plain(text: str) -> str:
    """Replace everything but letters, marks, digits and apostrophes by a space."""
    text = unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    characters = [c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text]
    return " ".join("".join(characters).split())


def normalize(text: str, steps: Sequence[str]) -> str:
    """Apply the steps in their order.

    Raises:
        ValueError: a step is unknown, or its library is missing; see :func:`problems`.
    """
    for step in steps:
        text = _function(step)(text)
    return text


def problems(steps: Sequence[str]) -> Iterator[str]:
    """Yield a message for each step that is unknown, or whose library is not installed."""
    for step in steps:
        try:
            _function(step)
        except ValueError as error:
            yield str(error)


@functools.cache
def _function(step: str) -> Callable[[str], str]:
    name, _, language = step.partition(":")
    if step == "lower":
        return str.lower
    if step == "punctuation":
        return plain
    if step == "nfkc":
        return functools.partial(unicodedata.normalize, "NFKC")
    if step in ("whisper", "whisper:en"):
        return _whisper(language)
    if name == "numbers" and language:
        return _numbers(language)
    raise ValueError(f"found {step!r}, expected one of {', '.join(STEPS)}")


def _whisper(language: str) -> Callable[[str], str]:
    try:
        from whisper_normalizer import basic, english
    except ImportError:
        raise ValueError(f"step whisper needs whisper-normalizer: {install('text')}") from None
    return english.EnglishTextNormalizer() if language == "en" else basic.BasicTextNormalizer()


def _numbers(language: str) -> Callable[[str], str]:
    try:
        import num2words
    except ImportError:
        raise ValueError(f"step numbers needs num2words: {install('text')}") from None
    if language not in num2words.CONVERTER_CLASSES and language[:2] not in num2words.CONVERTER_CLASSES:
        languages = ", ".join(sorted(num2words.CONVERTER_CLASSES))
        raise ValueError(f"found 'numbers:{language}', expected a language of num2words: {languages}")

    def words(match: re.Match[str]) -> str:
        with contextlib.suppress(ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError):
            return str(num2words.num2words(int(match[0]), lang=language))
        return match[0]  # larger than the library can write

    return lambda text: NUMBER.sub(words, text)
