"""``dataset=parallel_text``: your own sentences and their translations.

``dataset.path`` is one of these, gzipped (``.gz``) or not:

- a folder with ``train.tsv``, ``validation.tsv`` (or ``dev``, ``val``, ``valid``) and ``test.tsv``: a header line with
  the names of the languages, ``en<TAB>de``; one pair per line, no quoting. A third column may be ``id``, a name for
  each pair;
- one such file without splits, or a folder with only that file;
- a folder with line-aligned files, one for each split and language: ``train.en``, ``train.de``, ``val.en``, ...,
  ``test.de`` or ``test_2016.de``. Line n of one is the translation of line n of the other.

With two languages, the first column is translated to the second, or the first in alphabetical order to the other;
``dataset.source`` and ``dataset.target`` reverse the direction, or select two of more languages. Missing validation and
test splits are carved from the training split, so that no sentence of either language is in two splits.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config.spec import option, spec
from toolkit.data.columns.text import clean
from toolkit.data.example import SPLITS, Example, Sentence
from toolkit.data.problems import Problem, nearest
from toolkit.data.sources import folder
from toolkit.data.sources.folder import ALIASES, unusable
from toolkit.data.sources.lines import read_lines
from toolkit.datasets.base import PairDataset, check_fractions, pair

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*")  # en, pt-BR, zh_Hans
OTHER = {"csv", "gz", "log", "md", "sgm", "tsv", "txt", "xml", "zip"}  # endings that look like a language
LAYOUTS = "train.tsv with a header of two languages, or line-aligned train.en and train.de"


@spec
class ParallelText(PairDataset):
    """Your own parallel corpus."""

    path: str | None = option(None, "the folder with the splits, or one TSV file")
    test: str | None = option(None, "name of the test files, if there are several: test_2016_flickr")
    validation_fraction: float = option(
        0.05, "fraction of train to carve if the validation split is missing", ge=0, lt=1
    )
    test_fraction: float = option(0.05, "fraction of train to carve if the test split is missing", ge=0, lt=1)
    split_seed: int = option(0, "seed of the carved splits", ge=0)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from PairDataset.check(self)
        if not self.path:
            yield "path", "not set; set dataset.path=FOLDER, the folder of your texts"
        yield from check_fractions(self.validation_fraction, self.test_fraction)

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        items = read(Path(self.path or ""), self.source, self.target, self.test, self.split)
        yield from with_splits(items, self.validation_fraction, self.test_fraction, self.split_seed)


# --- layouts ---------------------------------------------------------------------------------------------------------


def read(
    path: Path, source: str | None, target: str | None, test: str | None = None, only: str | None = None
) -> Iterator[Example | Problem]:
    """Yield the pairs of a folder or file in one of the layouts above, and the problems with it.

    Args:
        path: the folder or file.
        source, target: languages; None: the remaining one of two languages, or the first and the second.
        test: name of the test files, without language and suffix; None: there is one set.
        only: a split that may be there without a training split; None: the training split is required.
    """
    path = path.expanduser()
    if path.is_file():
        yield from _read_table(path, "train", source, target)
        return
    if problem := unusable(path, "texts", LAYOUTS):
        yield problem
        return
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    tables = {file: _stem(file).removesuffix(".tsv") for file in files if _stem(file).endswith(".tsv")}
    aligned = {file: _stem(file).rpartition(".")[::2] for file in files if _is_aligned(file)}
    if tables and aligned:
        message = f"found {next(iter(tables)).name} and {next(iter(aligned)).name}, expected one layout: {LAYOUTS}"
        yield Problem("ambiguous layout", f"dataset.path={path}", message, fatal=True)
    elif len(tables) == 1 and not split_of(*tables.values()):
        yield from _read_table(next(iter(tables)), "train", source, target)
    elif tables:
        yield from _read_tables(tables, source, target, test, only)
    elif aligned:
        yield from _aligned_splits(path, aligned, source, target, test, only)
    else:
        shown = ", ".join(file.name for file in files[:5]) or "no file"
        message = f"found {shown}; expected {LAYOUTS}"
        yield Problem("no pairs", f"dataset.path={path}", message, fatal=True)


def split_of(name: str) -> str | None:
    """Return the split that a file name without language and suffix stands for, if any."""
    name = ALIASES.get(name.lower(), name.lower())
    return name if name in SPLITS else "test" if re.match(r"test[^a-z]", name) else None


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz")


def _is_aligned(file: Path) -> bool:
    _, dot, language = _stem(file).rpartition(".")
    return bool(dot) and language not in OTHER and bool(LANGUAGE.fullmatch(language))


def _files_of_splits(names: Iterable[str], test: str | None, only: str | None) -> tuple[dict[str, str], list[Problem]]:
    """Return split -> name of its files, and the problems with the names."""
    names = list(dict.fromkeys(names))
    names_of = {split: [name for name in names if split_of(name) == split] for split in SPLITS}
    problems = []
    for name in names:
        if not split_of(name):
            message = f"found {name!r}, expected {', '.join(SPLITS)}{nearest(name, [*SPLITS, *ALIASES])}"
            problems.append(Problem("unknown split", name, message, fatal=True))
    if test is not None:
        if test not in names_of["test"]:
            message = f"found {', '.join(names_of['test']) or 'no test files'}, expected {test} (dataset.test)"
            problems.append(Problem("missing file", test, message, fatal=True))
        names_of["test"] = [test]
    for split, candidates in names_of.items():
        if len(candidates) > 1:
            hint = "; choose by dataset.test=NAME" if split == "test" else ""
            message = f"found {' and '.join(candidates)}, expected one set of files{hint}"
            problems.append(Problem("ambiguous split", split, message, fatal=True))
    if not names_of["train"] and not (only and names_of[only]):
        hint = "; set dataset.split=test to evaluate an earlier run without it" if names_of["test"] and not only else ""
        message = f"found {', '.join(names)}, expected train too{hint}"
        problems.append(Problem("missing file", "train", message, fatal=True))
    return {split: names_of[split][0] for split in SPLITS if names_of[split]}, problems


def _languages(found: Sequence[str], source: str | None, target: str | None) -> tuple[str, str] | str:
    """Return source and target, or the problem with the requested languages."""
    shown = ", ".join(found)
    for key, name in (("source", source), ("target", target)):
        if name is not None and name not in found:
            return f"found the languages {shown}, expected {name} (dataset.{key}) among them{nearest(name, found)}"
    if source is not None and target is not None:
        return source, target
    given = target if source is None else source
    others = [name for name in found if name != given]
    if len(others) != (2 if given is None else 1):
        return f"found the languages {shown}, expected two; choose by dataset.source=... dataset.target=..."
    return (source or others[0], target or others[-1])


# --- TSV -------------------------------------------------------------------------------------------------------------


def _read_tables(
    tables: dict[Path, str], source: str | None, target: str | None, test: str | None, only: str | None
) -> Iterator[Example | Problem]:
    chosen, problems = _files_of_splits(tables.values(), test, only)
    yield from problems
    if problems:
        return
    for split, name in chosen.items():
        files = [file for file, stem in tables.items() if stem == name]
        if len(files) > 1:
            yield _ambiguous(files)
            continue
        for item in _read_table(files[0], split, source, target):
            if isinstance(item, Example):
                # those of the first table, if the user gave none
                source, target = (side.language for side in item.values.values() if isinstance(side, Sentence))
            yield item


def _read_table(file: Path, split: str, source: str | None, target: str | None) -> Iterator[Example | Problem]:
    """Yield the pairs of a TSV file."""
    lines = read_lines(file, file.name)
    if isinstance(lines, Problem):
        yield lines
        return
    header = [name.strip() for name in lines[0].split("\t")] if lines else []
    languages = _header(header, source, target)
    if isinstance(languages, str):
        yield Problem("unknown header", f"{file.name}, line 1", languages, fatal=True)
        return
    if len(lines) == 1:
        yield Problem("empty file", file.name, "found only a header, expected a pair in each line below", fatal=True)
    columns = header.index(languages[0]), header.index(languages[1])
    identity = header.index("id") if "id" in header and "id" not in languages else None
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        origin, row = f"{file.name}, line {number}", line.split("\t")
        if len(row) != len(header):
            message = f"{len(row)} columns, the header has {len(header)} ({', '.join(header)})"
            yield Problem("bad line", origin, message)
            continue
        name = f"{split}.{number}" if identity is None else row[identity]
        yield pair(name, split, row[columns[0]], row[columns[1]], origin, languages)


def _header(header: list[str], source: str | None, target: str | None) -> tuple[str, str] | str:
    # with only two columns, id is Indonesian
    names = [name for name in header if name != "id" or len(header) == 2 or "id" in (source, target)]
    shown = ", ".join(repr(name[:40]) for name in header) or "an empty file"
    if len(set(names)) < max(2, len(names)):
        return f"found {shown}, expected the names of two languages with a tab between, such as en and de"
    invalid = [name for name in names if name not in (source, target) and not LANGUAGE.fullmatch(name)]
    if invalid and None in (source, target):
        return (
            f"found {shown}, expected the codes of languages, such as en and de; if these are column names, "
            f"set dataset.source=... and dataset.target=..."
        )
    return _languages(names, source, target)


# --- line-aligned files ----------------------------------------------------------------------------------------------


def _aligned_splits(
    root: Path,
    files: dict[Path, tuple[str, str]],
    source: str | None,
    target: str | None,
    test: str | None,
    only: str | None,
) -> Iterator[Example | Problem]:
    available = sorted({language for name, language in files.values() if split_of(name)})
    languages = (
        _languages(available, source, target) if available else f"found {next(iter(files)).name}, expected {LAYOUTS}"
    )
    if isinstance(languages, str):
        yield Problem("unknown languages", f"dataset.path={root}", languages, fatal=True)
        return
    chosen, problems = _files_of_splits(
        (name for name, language in files.values() if language in languages), test, only
    )
    yield from problems
    if problems:
        return
    for split, name in chosen.items():
        sides = [[file for file, key in files.items() if key == (name, language)] for language in languages]
        if all(len(side) == 1 for side in sides):
            yield from _read_aligned(sides[0][0], sides[1][0], split, name, languages)
        for side, other, language in zip(sides, reversed(sides), languages, strict=True):
            if len(side) > 1:
                yield _ambiguous(side)
            elif not side:
                message = f"found {other[0].name}, expected {name}.{language} beside it"
                yield Problem("missing file", f"{name}.{language}", message, fatal=True)


def _read_aligned(
    source: Path, target: Path, split: str, name: str, languages: tuple[str, str]
) -> Iterator[Example | Problem]:
    """Yield the pairs of two line-aligned files."""
    contents = [read_lines(file, file.name) for file in (source, target)]
    yield from (lines for lines in contents if isinstance(lines, Problem))
    sources, targets = contents
    if isinstance(sources, Problem) or isinstance(targets, Problem):
        return
    where = f"{source.name} and {target.name}"
    if len(sources) != len(targets):
        message = f"found {len(sources):,} and {len(targets):,} lines, expected the same number"
        yield Problem("misaligned", where, message, fatal=True)
        return
    if not sources:
        yield Problem("empty file", where, "found no line in either, expected a sentence in each line", fatal=True)
    for number, (text, translation) in enumerate(zip(sources, targets, strict=True), 1):
        yield pair(f"{name}.{number}", split, text, translation, f"{where}, line {number}", languages)


def _ambiguous(files: Sequence[Path]) -> Problem:
    names = " and ".join(file.name for file in files)
    return Problem("ambiguous split", names, "found both, expected one of them", fatal=True)


# --- splits ----------------------------------------------------------------------------------------------------------


def with_splits(
    items: Iterable[Example | Problem], validation: float, test: float, seed: int
) -> Iterator[Example | Problem]:
    """Yield examples and problems, with missing splits carved from train; see :func:`cut`."""
    pairs: list[Example] = []
    for item in items:
        if isinstance(item, Example):
            pairs.append(item)
        else:
            yield item
    present = {example.split for example in pairs}
    yield from cut(pairs, 0 if "validation" in present else validation, 0 if "test" in present else test, seed)


def cut(pairs: Sequence[Example], validation: float, test: float, seed: int) -> Iterator[Example | Problem]:
    """Move fractions of the training split to validation and test.

    Pairs that share a sentence of either language, directly or through other pairs, stay together. They are taken in
    the order of a hash of seed and texts, which depends neither on the order of the lines nor on the direction.

    Args:
        pairs: of all splits.
        validation, test: fractions of the training split.
        seed: selects the pairs.
    """
    if not validation and not test:
        yield from pairs
        return
    train = [example for example in pairs if example.split == "train"]
    groups = _groups(train)
    message = f"none of the {len(groups)} groups of pairs that share a sentence ({len(train)} pairs in all) is small "
    message += "enough for a split; provide the splits"
    yield from folder.cut(pairs, groups, validation, test, seed, message)


def _groups(pairs: Sequence[Example]) -> dict[str, list[Example]]:
    """Group pairs that share sentences, ignoring case and white space; the key is the alphabetically first sentence."""
    parent: dict[str, str] = {}  # sentence -> a smaller sentence of its group, or itself

    def find(sentence: str) -> str:
        while (ancestor := parent.setdefault(sentence, sentence)) != sentence:
            parent[sentence] = parent[ancestor]
            sentence = ancestor
        return sentence

    keys = []
    for example in pairs:
        sides = [value for value in example.values.values() if isinstance(value, Sentence)]
        # an empty sentence is shared by no other pair
        keyed = ((side.language, clean(side.text).casefold() or f"\0{example.id}") for side in sides)
        roots = sorted(find("\0".join(name)) for name in keyed)
        parent[roots[1]] = roots[0]
        keys.append(roots[0])
    groups: dict[str, list[Example]] = defaultdict(list)
    for key, example in zip(keys, pairs, strict=True):
        groups[find(key)].append(example)
    return groups
