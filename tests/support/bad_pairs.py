"""Folders of bad parallel texts: what ``dataset=parallel_text`` must refuse, each with pieces of the message that it
must give."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support import bad_data
from tests.support.bad_data import Case

TRAIN = (
    ("the red house", "das rote Haus"),
    ("a green tree", "ein grüner Baum"),
    ("the old man sleeps", "der alte Mann schläft"),
    ("we drink cold water", "wir trinken kaltes Wasser"),
    ("she reads a book", "sie liest ein Buch"),
    ("they live here", "sie leben hier"),
)
VALIDATION = (("the old house", "das alte Haus"), ("we live here", "wir leben hier"))
TEST = (("a red book", "ein rotes Buch"), ("she drinks water", "sie trinkt Wasser"))
SPLITS = {"train": TRAIN, "val": VALIDATION, "test": TEST}
LONG = ("very " * 30 + "old", "sehr " * 30 + "alt")


def encoded(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def aligned(folder: Path) -> None:
    """Line-aligned files, all good: train.en, train.de, val.en, ..."""
    folder.mkdir(parents=True)
    for split, pairs in SPLITS.items():
        for side, language in enumerate(("en", "de")):
            (folder / f"{split}.{language}").write_bytes(encoded([pair[side] for pair in pairs]))


def tables(folder: Path) -> None:
    """TSV files, all good: train.tsv, ..."""
    folder.mkdir(parents=True)
    for split, pairs in SPLITS.items():
        (folder / f"{split}.tsv").write_bytes(encoded(["en\tde", *map("\t".join, pairs)]))


def _line(content: bytes, beside: bytes = b"ein Haus\n") -> Callable[[Path], None]:
    """Line-aligned files with one more line of train: ``content`` in English."""

    def make(folder: Path) -> None:
        aligned(folder)
        for language, line in (("en", content), ("de", beside)):
            with (folder / f"train.{language}").open("ab") as stream:
                stream.write(line)

    return make


def _row(content: bytes) -> Callable[[Path], None]:
    """TSV files with one more row of train."""

    def make(folder: Path) -> None:
        tables(folder)
        with (folder / "train.tsv").open("ab") as stream:
            stream.write(content)

    return make


def _with(make: Callable[[Path], None], name: str, content: bytes | None) -> Callable[[Path], None]:
    """What ``make`` makes, with another file; None: without this one."""

    def changed(folder: Path) -> None:
        make(folder)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    return changed


def _no_train(folder: Path) -> None:
    aligned(folder)
    for language in ("en", "de"):
        (folder / f"train.{language}").unlink()


def _other_tests(folder: Path) -> None:
    aligned(folder)
    for language in ("en", "de"):
        (folder / f"test_2017.{language}").write_bytes((folder / f"test.{language}").read_bytes())


def _misspelt(folder: Path) -> None:
    aligned(folder)
    for language in ("en", "de"):
        (folder / f"test.{language}").rename(folder / f"tset.{language}")


def _third_language(folder: Path) -> None:
    aligned(folder)
    for split in SPLITS:
        (folder / f"{split}.fr").write_bytes((folder / f"{split}.en").read_bytes())


def _named(folder: Path) -> None:
    tables(folder)
    header, *rows = (folder / "train.tsv").read_bytes().splitlines()
    names = [b"a", b"a", b"b", b"c", b"d", b"e"]
    lines = [b"id\t" + header, *(name + b"\t" + row for name, row in zip(names, rows, strict=True))]
    (folder / "train.tsv").write_bytes(b"\n".join(lines) + b"\n")


def _another_file(folder: Path) -> None:
    folder.write_text("# Notes\n\nA page about something else.\n")


_GZIPPED = gzip.compress(encoded([pair[0] for pair in TRAIN]))
_UTF_16 = "the red house\n".encode("utf-16")
_GOOD_ROWS = encoded(list(map("\t".join, TRAIN)))

# name -> maker of the folder, pieces of the message, whether dropping helps, other fields of the dataset
_CASES: dict[str, tuple[Any, ...]] = {
    "no such folder": (lambda folder: None, ("missing folder", "no such folder")),
    "empty folder": (lambda folder: folder.mkdir(), ("empty folder", "expected train.tsv")),
    "another file": (_another_file, ("line 1: unknown header", "found '# Notes'", "two languages")),
    "no pairs": (
        lambda folder: (folder.mkdir(), (folder / "README.md").write_text("x")),
        ("no pairs", "found README.md", "train.en and train.de"),
    ),
    "two layouts": (_with(aligned, "train.tsv", b"en\tde\na\tb\n"), ("ambiguous layout", "train.tsv and ")),
    "misaligned": (
        _line(b"one more\n", b""),
        ("train.de and train.en: misaligned: found 6 and 7 lines, expected the same number",),
    ),
    "misaligned by a line break": (_line(b"one\nmore\n", b"eins mehr\n"), ("misaligned: found 7 and 8 lines",)),
    "no translation": (_with(aligned, "val.de", None), ("val.de: missing file", "found val.en")),
    "no train": (_no_train, ("train: missing file", "found test, val, expected train too")),
    "misspelt split": (_misspelt, ("tset: unknown split", "did you mean 'test'?")),
    "misspelt table": (_with(tables, "vaild.tsv", b"en\tde\na\tb\n"), ("unknown split", "did you mean 'valid'?")),
    "two tests": (_other_tests, ("test: ambiguous split", "found test and test_2017", "dataset.test=NAME")),
    "no such test": (_other_tests, ("test_2018: missing file", "found test, test_2017"), False, {"test": "test_2018"}),
    "plain and gzipped": (
        _with(aligned, "train.en.gz", _GZIPPED),
        ("train.en and train.en.gz: ambiguous split", "expected one of them"),
    ),
    "three languages": (_third_language, ("found the languages de, en, fr, expected two", "dataset.source=")),
    "no such language": (
        aligned,
        ("found the languages de, en, expected es (dataset.target)",),
        False,
        {"target": "es"},
    ),
    "no header": (
        _with(tables, "train.tsv", _GOOD_ROWS),
        ("train.tsv, line 1: unknown header: found 'the red house', 'das rote Haus'", "such as en and de"),
    ),
    "one column": (_with(tables, "train.tsv", b"en\na\nb\n"), ("line 1: unknown header: found 'en'", "with a tab")),
    "empty table": (_with(tables, "val.tsv", b""), ("val.tsv, line 1: unknown header: found an empty file",)),
    "header alone": (_with(tables, "test.tsv", b"en\tde\n"), ("test.tsv: empty file: found only a header",)),
    "empty files": (
        lambda folder: (_with(aligned, "test.en", b"")(folder), (folder / "test.de").write_bytes(b"")),
        ("test.de and test.en: empty file",),
    ),
    "UTF-16": (_with(aligned, "train.en", _UTF_16), ("train.en: not UTF-8: it begins with", "UTF-16")),
    "damaged gzip": (
        lambda folder: (_with(aligned, "train.en", None)(folder), (folder / "train.en.gz").write_bytes(_GZIPPED[:-9])),
        ("train.en.gz: damaged file: damaged or truncated gzip file",),
    ),
    "not gzip": (
        lambda folder: (_with(aligned, "train.en", None)(folder), (folder / "train.en.gz").write_bytes(b"the house\n")),
        ("train.en.gz: damaged file: damaged or truncated gzip file",),
    ),
    "too few columns": (_row(b"only English\n"), ("train.tsv, line 8: bad line: 1 columns, the header has 2",), True),
    "too many columns": (_row(b"a\tb\tc\n"), ("train.tsv, line 8: bad line: 3 columns, the header has 2",), True),
    "duplicate id": (_named, ("train.tsv, line 3: duplicate id: found 'a' again, first in train.tsv, line 2",), True),
    "not UTF-8": (
        _line("ein grünes Haus\n".encode("latin-1")),
        ("train.de and train.en, line 7: not UTF-8: en: byte 0xfc at character 7",),
        True,
    ),
    "NUL": (_row(b"the\0house\tdas Haus\n"), ("train.tsv, line 8: control character: en: found U+0000",), True),
    "control character": (_row(b"a house\tdas\x1b Haus\n"), ("control character: de: found U+001B",), True),
    "lone carriage return": (
        _line(b"the\rhouse\n"),
        ("line 7: control character: en: found U+000D (a carriage return that ends no line)",),
        True,
    ),
    "byte-order mark inside": (
        _line("\ufeffthe house\n".encode()),
        ("line 7: byte-order mark: en: found U+FEFF at character 1",),
        True,
    ),
    "lost character": (_line("the ho\ufffdse\n".encode()), ("line 7: lost character: en: found U+FFFD",), True),
    "empty source": (_line(b"\n"), ("line 7: empty text: en: found no text",), True),
    "empty target": (_row(b"a house\t \n"), ("line 8: empty text: de: found no text",), True),
    "in two splits": (
        _row("\t".join(TEST[1]).encode() + b"\n"),
        ("train.tsv, line 8: in two splits: the same example as test.tsv, line 3, so it would be in both",),
        True,
        {"repeats": "bad"},
    ),
    "length ratio": (
        _row(b"a\tdas Haus am See\n"),
        ("line 8: length ratio: 1 characters en, 15 characters de", "dataset.max_ratio"),
        True,
        {"max_ratio": 3.0},
    ),
    "too long": (_row("\t".join(LONG).encode() + b"\n"), ("line 8: too long: ", "dataset.max_tokens"), True),
}


def make(root: Path) -> Iterator[Case]:
    """Make a folder for every kind of bad input in ``root``, an existing empty folder."""
    return bad_data.make(root, _CASES)
