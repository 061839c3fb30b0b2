"""Layouts of parallel texts: which file has which split and language.

A set of files holds one split. It is one file with both languages (a table, JSON lines, a translation memory, a test
set of WMT), or one file for each language (lines, or a test set of WMT), which share a name: ``train.de-en.de`` and
``train.de-en.en`` have the name ``train.de-en``. Hidden files, READMEs and licences are ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.example import SPLITS, Example, Sentence
from toolkit.data.problems import Problem, bad_name, nearest
from toolkit.data.sources.folder import ALIASES, is_beside, unusable
from toolkit.datasets.layouts import pair_files
from toolkit.datasets.layouts.pair_files import CODE, Direction, chosen_languages, plain_name
from toolkit.datasets.layouts.records import entries

Items = Iterator[Example | Problem]

LAYOUTS = "train.tsv with a header of two languages, or line-aligned train.en and train.de"
# endings that look like a language
OTHER = frozenset(
    (
        *("bak", "bib", "bin", "cff", "cfg", "csv", "db", "doc", "gz", "ids", "ini", "jpg", "log", "md"),
        *("old", "pdf", "png", "sgm", "tar", "tex", "tmp", "tmx", "tsv", "txt", "xml", "xz", "yml", "zip"),
    )
)
SIDES = (  # names of files with one language
    re.compile(rf"(?P<name>.+?)[-._](?P<role>src|ref)\.(?P<language>{CODE})\.(?:sgml?|xml|txt)"),
    re.compile(rf"(?P<name>.+)\.(?P<language>{CODE})\.(?:sgml?|xml|txt)"),
    re.compile(r"(?P<language>src|tgt)[-_](?P<name>.+)\.txt"),
    re.compile(rf"(?P<name>.+)\.(?P<language>{CODE})"),
)
OF_LANGUAGES = re.compile(r"(?:^|[-._])([a-z]{2,3})-([a-z]{2,3})$")  # a pair of languages in a name: corpus.de-en
TOKEN = re.compile(r"(?:news|discuss)?(train|dev|valid|val|validation|test|tst)\d*")

# ending of a file that is seen -> the nearest layout, with two lines of it
_ALIGNED = (
    "train.en and train.de with a sentence in each line: 'a red house', 'a green tree' in one, 'ein rotes Haus', "
    "'ein grüner Baum' in the other"
)
_TABLE = "train.tsv with lines such as 'en<TAB>de', 'a red house<TAB>ein rotes Haus'"
_JSON = (
    """train.jsonl with lines such as '{"en": "a red house", "de": "ein rotes Haus"}', """
    """'{"en": "a green tree", "de": "ein grüner Baum"}'"""
)
_MEMORY = (
    """train.tmx with lines such as '<tu><tuv xml:lang="en"><seg>a red house</seg></tuv>', """
    """'<tuv xml:lang="de"><seg>ein rotes Haus</seg></tuv></tu>'"""
)
NEAREST = {".csv": _TABLE, ".tsv": _TABLE, ".xlsx": _TABLE, ".json": _JSON, ".jsonl": _JSON, ".xml": _MEMORY}


@dataclass(frozen=True)
class Part:
    """One file of a set.

    Args:
        file: its path.
        name: of the set.
        language: of a file with one language; empty: it has both.
        role: "src" or "ref", if the name says which side of the translation it is.
    """

    file: Path
    name: str
    language: str = ""
    role: str = ""


def read(path: Path, source: str | None, target: str | None, test: str | None = None, only: str | None = None) -> Items:
    """Yield the pairs of a folder or file, and the problems with it.

    Args:
        path: the folder or file.
        source, target: languages; None: the remaining one of two languages, or the first and the second.
        test: name of the test files, without language and suffix; None: there is one set.
        only: a split that may be there without a training split; None: the training split is required.
    """
    direction = Direction(source, target)
    if os.path.isfile(path):
        yield from _single(path, direction)
    elif problem := unusable(path, "texts", LAYOUTS):
        yield problem
    else:
        yield from _folder(path, direction, test, only)


def split_of(name: str) -> str | None:
    """Return the split that a set's name stands for, if any."""
    name = OF_LANGUAGES.sub("", name).lower()
    tokens = [name, *re.split(r"[^a-z0-9]+", name)]
    matches = (match[1] for token in tokens if (match := TOKEN.fullmatch(token)))
    split = next(matches, name)
    split = "test" if split == "tst" else ALIASES.get(split, split)
    return split if split in SPLITS else None


def _single(file: Path, direction: Direction) -> Items:
    """Yield the pairs of a file without splits."""
    part = _part(file)
    if part and part.language:
        message = f"found a file of one language ({part.language}), expected the folder with the other language too"
        yield Problem("one language", f"dataset.path={file}", f"{message}: dataset.path={file.parent}", fatal=True)
    else:
        yield from pair_files.read(file, "train", direction)


def _folder(path: Path, direction: Direction, test: str | None, only: str | None) -> Items:
    visible = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    files = [file for file in visible if not file.is_dir() and not is_beside(file.name)]
    parts = [part for file in files if (part := _part(file))]
    tables, sides = _one_layout(parts)
    problems = [problem for part in (*tables, *sides) if (problem := _unusable_file(part.file))]
    if problems:
        yield from problems
    elif tables and sides:
        message = f"found {tables[0].file.name} and {sides[0].file.name}, expected one layout: {LAYOUTS}"
        yield Problem("ambiguous layout", f"dataset.path={path}", message, fatal=True)
    elif tables:
        yield from _tables(tables, direction, test, only)
    elif sides:
        yield from _sides(path, sides, direction, test, only)
    else:
        yield Problem("no pairs", f"dataset.path={path}", _unknown(visible), fatal=True)


def _one_layout(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Select the files with both languages, or those with one language each.

    Tables and line-aligned files come first: what lies beside them in another format is not read. Both are returned if
    the folder has both.
    """
    parts = [part for part in parts if "vocab" not in part.name.lower()]
    both = [part for part in parts if not part.language]
    tables = [part for part in both if pair_files.kind_of(part.file) == "table"]
    sides = [part for part in parts if part.language and not (tables and pair_files.is_marked_up(part.file))]
    plain = [part for part in sides if not plain_name(part.file).endswith(".txt")]
    sides = plain if tables or (_is_corpus(plain) and (_trains(plain) or not _trains(sides))) else sides
    sides = sides if _is_corpus(sides) else []
    return tables or ([] if sides else both), sides


def _part(file: Path) -> Part | None:
    """Return the part of a set that a file is by its name and, of XML, by its root; None if it is none."""
    name = plain_name(file)
    kind = pair_files.kind_of(file)
    if kind in ("table", "JSON lines", "TMX", "WMT"):
        stem = name.rpartition(".")[0]
        return None if name.endswith(".json") and not split_of(stem) else Part(file, stem)
    if kind == "other":
        return None
    for pattern in SIDES:
        if (match := pattern.fullmatch(name)) and match["language"] not in OTHER:
            fields = match.groupdict()
            return Part(file, fields["name"], fields["language"], fields.get("role", ""))
    return None


def _is_corpus(sides: Sequence[Part]) -> bool:
    """Tell whether files with one language have a split in their names, or are one set or more in two languages."""
    names = {part.name for part in sides}
    pairs = (len({part.language for part in sides if part.name == name}) > 1 for name in names)
    return any(map(split_of, names)) or (bool(names) and all(pairs))


def _trains(sides: Sequence[Part]) -> bool:
    return any(split_of(part.name) == "train" for part in sides)


def _unusable_file(file: Path) -> Problem | None:
    kind, message = bad_name(file.name)
    if kind:
        return Problem(kind, ascii(file.name), f"{message}; rename it", fatal=True)
    if file.is_file():
        return None
    if file.is_symlink() and not os.path.exists(file):
        message = f"a link to {os.readlink(file)}, where nothing is; copy the file, or mend the link"
        return Problem("dangling link", file.name, message, fatal=True)
    return Problem("not a file", file.name, "neither a file nor a link to one", fatal=True)


def _unknown(visible: Sequence[Path]) -> str:
    """Describe what a folder without a known layout has, and the nearest layout."""
    names = [ascii(path.name)[1:-1] if bad_name(path.name)[0] else path.name for path in visible]
    shown = ", ".join(name + "/" * path.is_dir() for name, path in zip(names[:5], visible, strict=False)) or "no file"
    more = f" and {len(visible) - 5} more" if len(visible) > 5 else ""
    endings = [Path(plain_name(path)).suffix.lower() for path in visible]
    layout = next((NEAREST[ending] for ending in endings if ending in NEAREST), _ALIGNED)
    folders = [path for path in visible if path.is_dir() and any(_part(file) for file in entries(path))]
    hint = f"; is dataset.path={folders[0]} meant?" if folders else ""
    archive = next((name for name, ending in zip(names, endings, strict=True) if ending in (".zip", ".tar")), "")
    unpack = f"; unpack {archive} first" if archive and not folders else ""
    return f"found {shown}{more}; the nearest layout is {layout}{hint}{unpack}"


def _sets_of_splits(names: Sequence[str], test: str | None, only: str | None) -> tuple[dict[str, str], list[Problem]]:
    """Return split -> name of its set, and the problems with the names. One set without a split is for training."""
    splits = {name: split_of(name) for name in names}
    nameless = [name for name, split in splits.items() if not split]
    if len(nameless) == 1 and "train" not in splits.values():
        splits[nameless[0]] = "train"
    names_of = {split: [name for name in splits if splits[name] == split] for split in SPLITS}
    problems = []
    for name, split in splits.items():
        if not split:
            message = f"found {name!r}, expected {', '.join(SPLITS)}{nearest(name, [*SPLITS, *ALIASES])}"
            hint = "; to train on several corpora, join them" if not any(names_of.values()) else ""
            problems.append(Problem("unknown split", name, message + hint, fatal=True))
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
    if any(names_of.values()) and not names_of["train"] and not (only and names_of[only]):
        hint = "; set dataset.split=test to evaluate an earlier run without it" if names_of["test"] and not only else ""
        message = f"found {', '.join(splits)}, expected train too{hint}"
        problems.append(Problem("missing file", "train", message, fatal=True))
    return {split: names_of[split][0] for split in SPLITS if names_of[split]}, problems


def _tables(parts: Sequence[Part], direction: Direction, test: str | None, only: str | None) -> Items:
    """Yield the pairs of files that have both languages."""
    chosen, problems = _sets_of_splits(list(dict.fromkeys(part.name for part in parts)), test, only)
    yield from problems
    if problems:
        return
    for split, name in chosen.items():
        files = [part.file for part in parts if part.name == name]
        if len(files) > 1:
            yield _ambiguous(files)
            continue
        for item in pair_files.read(files[0], split, direction):
            if isinstance(item, Example):
                # those of the first file, if the user gave none
                languages = (side.language for side in item.values.values() if isinstance(side, Sentence))
                direction = Direction(*languages)
            yield item


def _sides(root: Path, parts: Sequence[Part], direction: Direction, test: str | None, only: str | None) -> Items:
    """Yield the pairs of files that have one language each."""
    named = [part for part in parts if split_of(part.name)] or list(parts)
    sources = {part.language for part in named if part.role == "src"}
    available = sorted({part.language for part in named}, key=lambda language: (language not in sources, language))
    languages = chosen_languages(available, direction)
    if isinstance(languages, str):
        yield Problem("unknown languages", f"dataset.path={root}", languages, fatal=True)
        return
    parts = [part for part in parts if part.language in languages and _suits(part, languages)]
    splits = {split_of(part.name) for part in parts if not pair_files.is_marked_up(part.file)}
    parts = [
        part
        for part in parts
        if part.name == test or not pair_files.is_marked_up(part.file) or split_of(part.name) not in splits
    ]
    chosen, problems = _sets_of_splits(list(dict.fromkeys(part.name for part in parts)), test, only)
    yield from problems
    if problems:
        return
    for split, name in chosen.items():
        yield from _set([part for part in parts if part.name == name], split, name, languages, direction)


def _suits(part: Part, languages: tuple[str, str]) -> bool:
    """Tell whether the pair of languages in a set's name, if there is one, is the chosen one."""
    match = OF_LANGUAGES.search(part.name)
    return match is None or part.language not in match.groups() or set(languages) == set(match.groups())


def _set(parts: Sequence[Part], split: str, name: str, languages: tuple[str, str], direction: Direction) -> Items:
    """Yield the pairs of one set of files, of which each has one language."""
    sides: list[list[Part]] = []
    for language, role in zip(languages, ("src", "ref"), strict=True):
        side = [part for part in parts if part.language == language]
        sides.append([part for part in side if part.role == role] or side)
    if all(len(side) == 1 for side in sides):
        files = sides[0][0].file, sides[1][0].file
        yield from pair_files.read_sides(files, split, name, direction.labels(languages))
    for side, other, language in zip(sides, reversed(sides), languages, strict=True):
        if len(side) > 1:
            yield _ambiguous([part.file for part in side])
        elif not side and other:
            file = _counterpart(other[0], language)
            message = f"found {other[0].file.name}, expected {file} beside it"
            yield Problem("missing file", file, message, fatal=True)


def _counterpart(part: Part, language: str) -> str:
    """Return the name of the file that has the other side."""
    name = plain_name(part.file)
    if part.role:
        return f"{part.name}-{'ref' if part.role == 'src' else 'src'}.{language}{Path(name).suffix}"
    if name.startswith((f"{part.language}-", f"{part.language}_")):
        return f"{language}{name.removeprefix(part.language)}"
    return f"{part.name}.{language}" + name.removeprefix(f"{part.name}.{part.language}")


def _ambiguous(files: Sequence[Path]) -> Problem:
    names = " and ".join(file.name for file in files)
    return Problem("ambiguous split", names, "found both, expected one of them", fatal=True)
