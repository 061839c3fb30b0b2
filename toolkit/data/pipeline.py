"""Preparation of a dataset for training, in two stages.

:func:`prepare` needs only the dataset: it fetches, checks, decodes and caches. :func:`usable` needs the state that the
run learned: it checks every example against tokenizer, classes, features, task and model. Both list all problems
together and, by the dataset's ``on_bad``, refuse the data or drop and count the bad examples.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.config.paths import expand
from toolkit.data.columns.column import Column, Columns
from toolkit.data.example import SPLITS, Example, File
from toolkit.data.problems import LISTED, Problem, Report, bad_name, empty_splits, judge, nearest, parted
from toolkit.data.split import Corpus, Learned, Split, encoded
from toolkit.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from toolkit.config.schema import Run
    from toolkit.data.source import Source


def cache_folder() -> Path:
    """Return the folder of downloads and decoded data: TOOLKIT_CACHE, else ``toolkit`` in the user's cache folder."""
    if path := os.environ.get("TOOLKIT_CACHE"):
        return Path(expand(path)).absolute()
    return Path(expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache")).absolute() / "toolkit"


def progress(transient: bool = False) -> Bars:
    """Create progress bars on standard error; they are disabled if it is not a terminal.

    Args:
        transient: remove the bars at the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


# --- first stage: the dataset ----------------------------------------------------------------------------------------


def prepare(dataset: Source, columns: Columns, cache: Path | None = None) -> Corpus:
    """Fetch, check, decode and cache a dataset.

    Args:
        dataset: the spec.
        columns: the run's columns, which the dataset has.
        cache: instead of :func:`cache_folder`.

    Raises:
        DataError: all problems, unless ``dataset.on_bad`` is "drop" and none is fatal.
        RunError: the cache cannot be written.
    """
    cache = cache or cache_folder()
    with progress() as bars:
        yielded, problems = parted(dataset.examples(cache, bars))
        examples, unsound = _sound(dataset, columns, yielded)
        whole, undecodable = _decoded(columns, dataset.arrange(examples), cache, bars)
    repeats = _repeats(columns, whole)
    problems += unsound + undecodable
    allowed = dataset.allowed(Counter(example.split for example in yielded))
    if dataset.repeats == "bad" and repeats:
        allowed = {}  # the user must choose which of them to keep
        problems += [replace(repeat, message=f"{repeat.message}; keep one of them") for repeat in repeats.values()]
        whole = whole.select([i for i in range(len(whole)) if i not in repeats])
    splits = {name: whole.of(name) for name in SPLITS}
    fatal = any(problem.fatal for problem in problems)
    empty = [] if fatal else empty_splits(splits, dataset)  # a fatal problem explains it
    report = judge([*problems, *empty], dataset.on_bad, f"dataset {type(dataset).__name__}", allowed)
    if dataset.repeats == "keep":
        report += Report({}, [], tuple(_kept(list(repeats.values()))))
    return Corpus(splits, fingerprint(columns, splits), report)


def make_split(dataset: Source, columns: Columns, found: Iterable[Example | Problem]) -> tuple[Split, list[Problem]]:
    """Run the first stage for some examples of the training split, decoded into memory.

    Repeated examples are not detected.
    """
    examples, problems = parted(found)
    examples, flawed = _sound(dataset, columns, examples)
    whole, undecodable = _decoded(columns, examples, None, progress())
    return whole.of("train"), problems + flawed + undecodable


@dataclass(frozen=True)
class _Whole:
    """The examples of all splits, decoded: a value of each column for every example."""

    examples: list[Example]
    input: Any
    target: Any

    def __len__(self) -> int:
        return len(self.examples)

    def select(self, kept: Sequence[int]) -> _Whole:
        if len(kept) == len(self):
            return self
        return _Whole([self.examples[i] for i in kept], self.input.select(kept), self.target.select(kept))

    def of(self, name: str) -> Split:
        chosen = self.select([i for i, example in enumerate(self.examples) if example.split == name])
        ids, origins = [e.id for e in chosen.examples], [e.where for e in chosen.examples]
        return Split(name, ids, origins, chosen.input, chosen.target)


def _sound(dataset: Source, columns: Columns, examples: Iterable[Example]) -> tuple[list[Example], list[Problem]]:
    """Return the examples with a usable id, split and values, which are cleaned; and the problems of the others."""
    sound: list[Example] = []
    problems: list[Problem] = []
    first: dict[str, Example] = {}
    for example in examples:
        kind, message = _misplaced(example, first)
        values = dict(example.values)
        for column in columns:
            if not kind:
                values[column.name], kind, message = column.check(values[column.name])
                if kind == "empty text":
                    message = "; ".join([message, *_excerpts(columns, column, example)])
        if not kind:
            kind, message = dataset.flaw(example)
        if kind:
            problems.append(Problem(kind, example.where, message, split=example.split))
        else:
            sound.append(replace(example, values=values))
    return sound, problems


def _excerpts(columns: Columns, flawed: Column[Any], example: Example) -> list[str]:
    """Return the beginnings of the values beside a flawed one, which show the user what is missing."""
    excerpts = [column.excerpt(example.values[column.name]) for column in columns if column is not flawed]
    return [excerpt for excerpt in excerpts if excerpt]


def _misplaced(example: Example, first: dict[str, Example]) -> tuple[str, str]:
    """Return kind and message of a flaw of an example's id or split; two empty strings if there is none.

    Args:
        example: to check.
        first: id -> the first example that has it; this one is added.
    """
    earlier = first.setdefault(example.id, example)
    if earlier is not example:
        kind = "duplicate file" if _paths(example) and _paths(example) == _paths(earlier) else "duplicate id"
        return kind, f"found {example.id!r} again, first in {earlier.origin}; expected unique ids and files"
    if example.split not in SPLITS:
        hint = nearest(example.split, SPLITS, 0.3)
        return "unknown split", f"found {example.split!r}, expected one of {', '.join(SPLITS)}{hint}"
    return bad_name(example.id)


def _paths(example: Example) -> list[Path]:
    files = [value.content for value in example.values.values() if isinstance(value, File)]
    return [content for content in files if isinstance(content, Path)]


def _decoded(columns: Columns, examples: list[Example], cache: Path | None, bars: Bars) -> tuple[_Whole, list[Problem]]:
    """Decode every column; an example with a value that cannot be decoded becomes a problem."""
    wheres = [example.where for example in examples]
    columns_decoded = [
        column.decode([e.values[column.name] for e in examples], wheres, cache, bars) for column in columns
    ]
    problems = [
        Problem(flaw.kind, wheres[flaw.position], flaw.message, flaw.fatal, examples[flaw.position].split)
        for decoded in columns_decoded
        for flaw in decoded.flaws
    ]
    common = sorted(set.intersection(*(set(decoded.positions) for decoded in columns_decoded)))
    values = []
    for decoded in columns_decoded:
        places = {position: place for place, position in enumerate(decoded.positions)}
        chosen = [places[position] for position in common]
        values.append(decoded.values if len(chosen) == len(places) else decoded.values.select(chosen))
    return _Whole([examples[i] for i in common], *values), problems


def _repeats(columns: Columns, whole: _Whole) -> dict[int, Problem]:
    """Return problems, by position, of examples that are in another split too: test has priority, then validation.

    If equal inputs must have equal targets, the same input with another target is a problem too.
    """
    keys = list(whole.input.records)
    if not columns.target.exclusive:
        keys = [f"{one}\0{other}" for one, other in zip(keys, whole.target.records, strict=True)]
    same = f"the same {columns.input.noun if columns.target.exclusive else 'example'} as"
    problems: dict[int, Problem] = {}
    first: dict[str, int] = {}
    rank = {name: i for i, name in enumerate(reversed(SPLITS))}
    for i in sorted(range(len(whole)), key=lambda i: rank[whole.examples[i].split]):
        other = first.setdefault(keys[i], i)
        here, there = whole.examples[i], whole.examples[other]
        if columns.target.exclusive and whole.target.records[i] != whole.target.records[other]:
            classes = (whole.target.records[other], whole.target.records[i])
            message = f"{same} {there.where}, whose class is {classes[0]!r}; this one's is {classes[1]!r}"
            problems[i] = Problem("in two classes", here.where, message)
        elif here.split != there.split:
            message = f"{same} {there.where}, so it would be in both {there.split} and {here.split}"
            problems[i] = Problem("in two splits", here.where, message)
    return dict(sorted(problems.items()))


def _kept(repeats: Sequence[Problem]) -> Iterator[str]:
    """Yield lines for the log about repeated examples that are kept."""
    for kind, count in Counter(problem.kind for problem in repeats).items():
        yield f"examples {kind}: {count} (kept: dataset.repeats=keep)"
    yield from (f"    {problem.where}: {problem.message}" for problem in repeats[:LISTED])
    if len(repeats) > LISTED:
        yield f"    ... and {len(repeats) - LISTED} more"


def fingerprint(columns: Columns, splits: Mapping[str, Split]) -> str:
    """Return the SHA-256 of ids, splits and contents: texts, then the hashes of files."""
    train = splits["train"]
    digest = hashlib.sha256(f"{train.input.header}{train.target.header}".encode())
    for name, split in splits.items():
        parts = ((columns.input, split.input), (columns.target, split.target))
        ordered = sorted(parts, key=lambda part: part[0].decodes)
        for record in zip(split.ids, *(values.records for _, values in ordered), strict=True):
            digest.update("\0".join((name, *record, "")).encode(errors="surrogateescape"))
    return digest.hexdigest()


# --- what is learned -------------------------------------------------------------------------------------------------


def groups(columns: Columns) -> list[str]:
    """List the folders in a run folder that hold the learned state of its columns."""
    folders = [column.folder for column in columns if column.folder]
    return list(dict.fromkeys(folder.partition("/")[0] for folder in folders))


def learn(columns: Columns, train: Split, folder: Path, chosen: Collection[str] | None = None) -> None:
    """Learn tokenizer, classes and features from the training split.

    Args:
        columns: the run's columns.
        train: the training split.
        folder: gets a folder for each of :func:`groups`.
        chosen: groups to learn; None: all.
    """
    together: dict[str, list[tuple[Column[Any], Any]]] = {}
    for column, values in ((columns.input, train.input), (columns.target, train.target)):
        if column.folder and (chosen is None or column.folder.partition("/")[0] in chosen):
            together.setdefault(column.folder, []).append((column, values))
    for name, parts in together.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        parts[0][0].learn([values for _, values in parts], folder / name)


def load(columns: Columns, folder: Path) -> Learned:
    """Load the state that :func:`learn` wrote, from a run folder or a checkpoint.

    Raises:
        DataError: it is missing or damaged.
    """
    loaded: dict[str | None, Any] = {}
    for column in columns:
        if column.folder not in loaded:
            loaded[column.folder] = column.load(folder / (column.folder or ""))
    states = [loaded[column.folder] for column in columns]
    sizes = [column.size(state) for column, state in zip(columns, states, strict=True)]
    features = {**columns.input.state(states[0]), **columns.target.state(states[1])}
    return Learned(states[0], states[1], sizes[0], sizes[1], features)


# --- second stage: tokenizer, features, task and model ---------------------------------------------------------------


def usable(run: Run, columns: Columns, corpus: Corpus, learned: Learned) -> Corpus:
    """Check every example against the learned state, the task and the model.

    Raises:
        DataError: there are problems that are not dropped, or a split has no usable example.
    """
    states = (learned.input, learned.target)
    problems = [
        Problem(kind, "train", message, fatal=True)
        for column, state in zip(columns, states, strict=True)
        for kind, message in column.unfit_learned(state)
    ]
    notes: list[str] = []
    splits = {}
    for name, split in corpus.splits.items():
        splits[name], bad = fitting(run, columns, split, learned)
        problems += bad
        parts = zip(columns, (splits[name].input, splits[name].target), states, strict=True)
        notes += [f"{name}: {line}" for column, values, state in parts for line in column.notes(values, state)]
    problems += empty_splits(splits, run.dataset)
    allowed = run.dataset.allowed({name: len(split) for name, split in corpus.splits.items()})
    report = judge(problems, run.dataset.on_bad, "this model", allowed)
    return Corpus(splits, fingerprint(columns, splits), corpus.report + report + Report({}, [], tuple(notes)))


def require_validation(corpus: Corpus) -> None:
    """Refuse a corpus that a run cannot train on because it has no validation split.

    Raises:
        DataError: it has none.
    """
    if not len(corpus.splits["validation"]):
        raise DataError(
            "validation: found no such split, expected one, because it selects the best checkpoint; add "
            "validation data or set dataset.validation_fraction"
        )


def fitting(run: Run, columns: Columns, split: Split, learned: Learned) -> tuple[Split, list[Problem]]:
    """Return the examples that fit tokenizer, task and model, encoded; and the problems of the others."""
    split = encoded(columns, split, learned)
    problems = unfit(run, columns, split, learned)
    kept = split.select([i for i in range(len(split)) if i not in problems])
    return kept, list(problems.values())


def unfit(run: Run, columns: Columns, split: Split, learned: Learned) -> dict[int, Problem]:
    """Return the problems of encoded examples that do not fit tokenizer, task or model, by position, ascending."""
    flaws = list(run.task.unfit(run, split, learned))
    flaws += columns.input.unfit(split.input, learned.input)
    if split.target is not None:
        flaws += columns.target.unfit(split.target, learned.target)
    problems: dict[int, Problem] = {}
    for flaw in flaws:
        problem = Problem(flaw.kind, split.origins[flaw.position], flaw.message, flaw.fatal, split.name)
        problems.setdefault(flaw.position, problem)
    return dict(sorted(problems.items()))
