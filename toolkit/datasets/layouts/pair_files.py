"""Files of parallel texts: tables, JSON lines, translation memories (TMX), test sets of WMT, aligned lines.

All may be gzipped.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.example import Example
from toolkit.data.problems import Problem, nearest
from toolkit.data.sources.lines import read_lines
from toolkit.datasets.base import pair
from toolkit.datasets.layouts import markup
from toolkit.datasets.layouts.markup import Unit

Items = Iterator[Example | Problem]

CODE = r"[a-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*"  # code of a language: en, pt-BR, zh_Hans
LANGUAGE = re.compile(CODE)
HEAD = 1000  # records that are searched for the languages of a file


@dataclass(frozen=True)
class Direction:
    """The requested languages; None: the first of the data's two languages is translated to the second."""

    source: str | None = None
    target: str | None = None

    def labels(self, languages: tuple[str, str]) -> tuple[str, str]:
        """Return the names of the chosen languages: as requested, or else as the data has them."""
        return self.source or languages[0], self.target or languages[1]


def plain_name(file: Path) -> str:
    """Return a file's name without the ending of gzip."""
    return file.name.removesuffix(".gz")


def is_marked_up(file: Path) -> bool:
    """Tell whether a file is XML or SGML by its ending."""
    return Path(plain_name(file)).suffix.lower() in (".xml", ".sgm", ".sgml")


def kind_of(file: Path) -> str:
    """Return the kind of a file by its ending and, of XML, its root: "side" has one language, "other" is unknown."""
    kinds = {".tsv": "table", ".jsonl": "JSON lines", ".ndjson": "JSON lines", ".json": "JSON lines", ".tmx": "TMX"}
    if not is_marked_up(file):
        return kinds.get(Path(plain_name(file)).suffix.lower(), "side")
    roots = {"tmx": "TMX", "dataset": "WMT", "mteval": "side", "srcset": "side", "refset": "side"}
    return roots.get(markup.root_of(file), "other")


def chosen_languages(available: Sequence[str], direction: Direction) -> tuple[str, str] | str:
    """Return the data's names of source and target, or the problem with the requested languages.

    A requested language may lack the region or script of the data's, if only one matches: en for en-US.
    """
    shown = ", ".join(available)
    names: list[str | None] = []
    for key, name in (("source", direction.source), ("target", direction.target)):
        if name is None or name in available:
            names.append(name)
            continue
        matches = [other for other in available if name.lower() in (other.lower(), re.split("[-_]", other.lower())[0])]
        if len(matches) > 1:
            return f"found the languages {shown}, expected one of {', '.join(matches)}, not {name} (dataset.{key})"
        if not matches:
            return f"found the languages {shown}, expected {name} (dataset.{key}) among them{nearest(name, available)}"
        names.append(matches[0])
    source, target = names
    if source is not None and target is not None:
        return source, target
    given = target if source is None else source
    others = [name for name in available if name != given]
    if len(others) != (2 if given is None else 1):
        chosen = f" with dataset.{'target' if source is None else 'source'}={given}" if given else ""
        return f"found the languages {shown}{chosen}, expected two; choose by dataset.source=... dataset.target=..."
    return (source or others[0], target or others[-1])


def read(file: Path, split: str, direction: Direction) -> Items:
    """Yield the pairs of a file that has both languages."""
    kind = kind_of(file)
    if kind == "JSON lines":
        yield from _pairs(file, split, _json_units(file, split, direction), direction)
    elif kind == "TMX":
        yield from _pairs(file, split, markup.memory(file, split), direction)
    elif kind == "WMT":
        yield from _pairs(file, split, markup.test_set(file, split), direction)
    else:
        yield from _read_table(file, split, direction)


def _pairs(file: Path, split: str, units: Iterator[Unit | Problem], direction: Direction) -> Items:
    head = list(itertools.islice(units, HEAD))
    fatal = [unit for unit in head if isinstance(unit, Problem) and unit.fatal]
    texts = [unit.texts for unit in head if isinstance(unit, Unit)]
    if fatal or not texts:
        message = "found no text in two languages, expected at least one"
        yield from fatal or [Problem("empty file", file.name, message, fatal=True)]
        return
    languages = chosen_languages(list(dict.fromkeys(itertools.chain(*texts))), direction)
    if isinstance(languages, str):
        yield Problem("unknown languages", file.name, languages, fatal=True)
        return
    labels = direction.labels(languages)
    for unit in itertools.chain(head, units):
        yield unit if isinstance(unit, Problem) else _pair(unit, split, languages, labels)


def _pair(unit: Unit, split: str, languages: tuple[str, str], labels: tuple[str, str]) -> Example | Problem:
    for language, other in (languages, languages[::-1]):
        if language not in unit.texts:
            seen = ", ".join(unit.texts) or "no language"
            beside = f" ({other}: {str(unit.texts[other])[:60]!r})" if other in unit.texts else ""
            return Problem("no translation", unit.where, f"found {seen}{beside}, expected {language} too")
    texts = [unit.texts[language] for language in languages]
    for language, text in zip(labels, texts, strict=True):
        if text is not None and not isinstance(text, str):
            return Problem(
                "wrong type", unit.where, f"{language} is {text!r:.60} ({type(text).__name__}), expected text"
            )
    source, target = (text if isinstance(text, str) else "" for text in texts)
    return pair(unit.id, split, source, target, unit.where, labels)


# --- tables ----------------------------------------------------------------------------------------------------------


def _read_table(file: Path, split: str, direction: Direction) -> Items:
    """Yield the pairs of a TSV file."""
    lines = read_lines(file, file.name)
    if isinstance(lines, Problem):
        yield lines
        return
    header = [name.strip() for name in lines[0].split("\t")] if lines else []
    languages = _header(header, direction)
    if isinstance(languages, str):
        yield Problem("unknown header", f"{file.name}, line 1", languages, fatal=True)
        return
    if len(lines) == 1:
        yield Problem("empty file", file.name, "found only a header, expected a pair in each line below", fatal=True)
    columns, labels = (header.index(languages[0]), header.index(languages[1])), direction.labels(languages)
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
        yield pair(name, split, row[columns[0]], row[columns[1]], origin, labels)


def _header(header: list[str], direction: Direction) -> tuple[str, str] | str:
    requested = (direction.source, direction.target)
    # with only two columns, id is Indonesian
    names = [name for name in header if name != "id" or len(header) == 2 or "id" in requested]
    shown = ", ".join(repr(name[:40]) for name in header) or "an empty file"
    if len(set(names)) < max(2, len(names)):
        return f"found {shown}, expected the names of two languages with a tab between, such as en and de"
    invalid = [name for name in names if name not in requested and not LANGUAGE.fullmatch(name)]
    if invalid and None in requested:
        return (
            f"found {shown}, expected the codes of languages, such as en and de; if these are column names, "
            f"set dataset.source=... and dataset.target=..."
        )
    return chosen_languages(names, direction)


# --- JSON lines ------------------------------------------------------------------------------------------------------


def _json_units(file: Path, split: str, direction: Direction) -> Iterator[Unit | Problem]:
    """Yield the records of a file with a JSON object in each line: languages, or ``translation`` with languages."""
    lines = read_lines(file, file.name)
    if isinstance(lines, Problem):
        yield lines
        return
    for number, line in enumerate(lines, 1):
        where = f"{file.name}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            message = f"not valid JSON: {error}; expected an object with two languages in each line"
            yield Problem("bad line", where, message, fatal=number == 1)
            continue
        if not isinstance(row, dict):
            message = f"found a JSON {type(row).__name__}, expected an object such as {{'en': ..., 'de': ...}}"
            yield Problem("bad line", where, message, fatal=number == 1)
            continue
        nested = row.get("translation")
        texts = nested if isinstance(nested, dict) else _fields_of_languages(row, direction)
        if not texts:
            message = f"found the fields {', '.join(row) or 'none'}, expected two languages such as en and de"
            hint = "; if these are the texts, set dataset.source=... and dataset.target=..." if len(row) > 1 else ""
            yield Problem("unknown languages", where, message + hint, fatal=number == 1)
            continue
        identity = row.get("id")
        name = str(identity) if isinstance(identity, (str, int)) else f"{split}.{number}"
        yield Unit(where, name, texts)


def _fields_of_languages(row: Mapping[str, object], direction: Direction) -> Mapping[str, object]:
    requested = (direction.source, direction.target)
    texts = {key: text for key, text in row.items() if key in requested or LANGUAGE.fullmatch(key)}
    if len(texts) > 2 and "id" not in requested:
        texts.pop("id", None)
    return texts


# --- a file for each language ----------------------------------------------------------------------------------------


def read_sides(files: tuple[Path, Path], split: str, name: str, labels: tuple[str, str]) -> Items:
    """Yield the pairs of two files with one language each.

    Args:
        files: with the source and the target.
        split: of the pairs.
        name: of the set, for ids.
        labels: names of source and target.
    """
    if all(map(is_marked_up, files)):
        yield from _set_pairs(files, split, name, labels)
        return
    contents = [read_lines(file, file.name) for file in files]
    yield from (lines for lines in contents if isinstance(lines, Problem))
    sources, targets = contents
    if isinstance(sources, Problem) or isinstance(targets, Problem):
        return
    where = f"{files[0].name} and {files[1].name}"
    if len(sources) != len(targets):
        message = f"found {len(sources):,} and {len(targets):,} lines, expected the same number"
        yield Problem("misaligned", where, message, fatal=True)
        return
    if not sources:
        yield Problem("empty file", where, "found no line in either, expected a sentence in each line", fatal=True)
    for number, (text, translation) in enumerate(zip(sources, targets, strict=True), 1):
        yield pair(f"{name}.{number}", split, text, translation, f"{where}, line {number}", labels)


def _set_pairs(files: tuple[Path, Path], split: str, name: str, labels: tuple[str, str]) -> Items:
    """Yield the pairs of two files of a test set, matched by document and segment."""
    contents = [markup.segments_of(file) for file in files]
    yield from (segments for segments in contents if isinstance(segments, Problem))
    sides: list[dict[tuple[str, str], str]] = []
    for segments in contents:
        if isinstance(segments, Problem):
            return
        # reversed, so that the first of several references is kept
        sides.append({(document, number): text for _, document, number, text in reversed(segments)})
    sources, targets = sides
    where = f"{files[0].name} and {files[1].name}"
    if not sources.keys() & targets.keys():
        message = "found no segment that is in both, expected the same ids of documents and segments"
        yield Problem("misaligned", where, message, fatal=True)
        return
    ordered = dict.fromkeys(itertools.chain(reversed(sources), reversed(targets)))
    for document, number in ordered:
        present = [(document, number) in side for side in sides]
        if all(present):
            texts = sources[document, number], targets[document, number]
            origin = markup.place_of(where, document, number)
            yield pair(f"{name}.{document}.{number}", split, *texts, origin, labels)
        else:
            file, other = files if present[0] else files[::-1]
            message = f"found it in {file.name}, expected it in {other.name} too"
            yield Problem("no translation", markup.place_of(file.name, document, number), message)
