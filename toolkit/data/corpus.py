"""What every corpus has, whatever is in it: named splits, problems that are found before the first step, a cache."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from toolkit.config.contracts import Sharded
from toolkit.config.spec import option, spec
from toolkit.data.batch import Collate, Static
from toolkit.data.plan import Plan, padding_efficiency, rounded
from toolkit.errors import DataError
from toolkit.runs.checkpoint import Progress

if TYPE_CHECKING:
    from toolkit.config.schema import Run

SPLITS = ("train", "validation", "test")

# Problems printed in full; the rest is counted by kind.
LISTED = 50


@spec
class Source:
    """Fields that every dataset has."""

    split: Literal["train", "validation", "test"] | None = option(
        None, "with evaluate=RUN_FOLDER: the only split to measure; null: all but train"
    )
    on_bad: Literal["refuse", "drop"] = option(
        "refuse", "a bad example: refuse the data and list all problems, or drop it and count"
    )
    streaming: bool = option(
        False, "read the training split while it is trained on, a pool of examples at a time, and keep none of it"
    )
    pool: int = option(1024, "streaming: examples of a pool, from which batches of like lengths are made", ge=1)
    lanes: int = option(8, "streaming: shards that are read beside each other; every process has as many of them", ge=1)
    sample: int = option(10_000, "streaming: first examples, from which tokenizer and features are learned", ge=1)

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Conditions between the dataset and the run."""
        if self.split and not run.evaluate:
            yield "split", f"{self.split} is not supported without evaluate=RUN_FOLDER; set dataset.split=null"
        if self.streaming and not isinstance(self, Sharded):
            name = type(self).__name__
            yield "streaming", f"true is not supported by {name}, which has no shards; set dataset.streaming=false"
        if self.streaming and self.split == "train":
            yield "split", "train is not supported with dataset.streaming=true; set dataset.streaming=false"

    @property
    def kept(self) -> tuple[str, ...]:
        """The splits that are read as a whole."""
        return SPLITS[1:] if self.streaming else SPLITS


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data.

    Args:
        kind: one of a few words that problems are counted by.
        where: the file and record.
        message: what was found, what was expected, how to mend it.
        fatal: the data cannot be used without it, so ``on_bad=drop`` does not help.
    """

    kind: str
    where: str
    message: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.message}"


@dataclass(frozen=True)
class Report:
    """What was left out under ``on_bad=drop``: kind of problem -> examples, and one line each.

    ``notes`` are lines about what was kept and should be known.
    """

    dropped: dict[str, int]
    lines: list[str]
    notes: tuple[str, ...] = ()

    def __add__(self, other: Report) -> Report:
        dropped = dict(Counter(self.dropped) + Counter(other.dropped))
        return Report(dropped, self.lines + other.lines, self.notes + other.notes)


class Split(Protocol):
    """One split of any corpus. Each domain's module has its own, with the content of the examples beside this."""

    name: str
    ids: list[str]
    texts: list[str]  # what is to be found: transcript, translation, class

    def __len__(self) -> int: ...

    def describe(self) -> str:
        """How much there is, in words: "842 examples (0.70 h)"."""
        ...


@dataclass(frozen=True)
class Corpus:
    """All splits. ``fingerprint`` is a hash of ids, texts, splits and contents of what is in them."""

    splits: Mapping[str, Any]
    fingerprint: str
    report: Report


@dataclass(frozen=True)
class Learned:
    """What a run learned from its training split, and so the sizes of the model's ends.

    Args:
        tokenizer: turns token ids into text; has ``decode(ids)`` and ``size``.
        features: arrays by name, the state of the features.
        inputs: what the model sees: bands of the features; (height, width, channels); size of the source vocabulary.
        outputs: size of the (target) vocabulary, or classes.
    """

    tokenizer: Any
    features: Mapping[str, np.ndarray]
    inputs: Any
    outputs: int


@dataclass(frozen=True)
class Data:
    """One split, ready to be batched.

    Args:
        split: of a corpus.
        plan: its batches.
        collator: makes a batch of positions in the split, for an epoch.

    It answers what the loop asks of a training split, as ``data.stream.Stream`` does for one that is not held as a
    whole.
    """

    split: Any
    plan: Plan
    collator: Collate
    held: ClassVar[None] = None  # see ``toolkit.data.stream.Pool``: here every process has all of it

    @property
    def digest(self) -> str:
        """Equal where the same positions are the same batches."""
        return self.plan.digest

    def describe(self) -> str:
        return f"{self.split.describe()}, {len(self.plan)} batches an epoch"

    def steps(self, trainer: Any) -> int:
        """Optimizer steps of a run; an epoch's odd batches make a step of their own."""
        steps = trainer.max_epochs * math.ceil(len(self.plan) / trainer.accumulate)
        return min(steps, trainer.max_steps or steps)

    def turn(self, engine: Any, at: Progress) -> None:
        """Go on to the next epoch, where this one has no batch left."""
        at.stream = {}
        if at.batch >= len(self.plan):
            at.epoch, at.batch = at.epoch + 1, 0

    def part(self, engine: Any, at: Progress) -> Data:
        """What the batches at hand are taken from."""
        return self

    def batches(self, epoch: int) -> list[np.ndarray]:
        return self.plan.epoch(epoch)

    def position(self, at: Progress, accumulate: int) -> int:
        """Batches since the start, which key the dropout masks."""
        return at.epoch * len(self.plan) + at.batch

    def passed(self, at: Progress) -> float:
        """Examples up to a position."""
        return (at.epoch + at.batch / len(self.plan)) * len(self.split)

    def efficiency(self) -> float | None:
        """Share of what the batches of an epoch hold that is no padding."""
        plan = self.plan
        return padding_efficiency(plan.lengths, plan.epoch(0), plan.padded) if len(plan) else None

    def notes(self) -> Iterable[str]:
        """What is to be said of it at the end."""
        return ()

    def close(self) -> None:
        """Nothing reads ahead here."""


def batched(run: Any, split: Any, collator: Collate, lengths: np.ndarray, unit: float | None = None) -> Data:
    """A split in batches, as the run's trainer wants them.

    Args:
        run: the run's specs.
        split, collator: see :class:`Data`.
        lengths: ``(examples,)`` of all its examples.
        unit: how many of them are one of the budget's; None: one.
    """
    trainer = run.trainer
    padded = rounded(lengths) if trainer.static_shapes else None
    if padded is not None:
        collator = Static.of(collator, padded)
    if unit is not None:
        lengths, padded = lengths / unit, None if padded is None else padded / unit
    plan = Plan(lengths, trainer.batch_budget, trainer.batch_examples, run.seed, padded, trainer.multiple)
    return Data(split, plan, collator)


@dataclass(frozen=True)
class Given:
    """What a user gave to ``toolkit.cli.predict``.

    Args:
        split: what a model is to look at; the references are empty.
        problems: what is wrong with the rest.
        blank: inputs that are blank, and so answered by a blank: the place among all answers, and the id.
    """

    split: Any
    problems: list[Problem]
    blank: tuple[tuple[int, str], ...] = ()


def selected(split: Any, kept: Sequence[int], **others: Any) -> Any:
    """A domain's split with only the examples at these positions.

    Args:
        split: a dataclass; each of its lists and arrays has one value an example.
        kept: the positions.
        others: new values of fields that hold the examples in another way.
    """
    for field in dataclasses.fields(split):
        values = getattr(split, field.name)
        if isinstance(values, list):
            others[field.name] = [values[i] for i in kept]
        elif isinstance(values, np.ndarray):
            others[field.name] = values[list(kept)]
    return dataclasses.replace(split, **others)


def cache_folder() -> Path:
    """Where downloads and decoded data are kept: TOOLKIT_CACHE, else ``toolkit`` in the user's cache folder."""
    if chosen := os.environ.get("TOOLKIT_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "toolkit"


def clean(text: str) -> str:
    """Text as it is trained on: Unicode NFC, runs of white space as one blank, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def passing_folder() -> Path:
    """A new folder that is removed when the process ends."""
    import atexit
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="toolkit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def parted(items: Iterable[Any]) -> tuple[list[Any], list[Problem]]:
    """What a dataset yields: its examples, and the problems among them."""
    found = list(items)
    return [i for i in found if not isinstance(i, Problem)], [i for i in found if isinstance(i, Problem)]


def nearest(name: str, options: Iterable[object], likeness: float = 0.6) -> str:
    """A question whether one of the options was meant; empty where none is as like the name as that."""
    found = difflib.get_close_matches(name, [str(o) for o in options], 1, likeness)
    return f"; did you mean {found[0]!r}?" if found else ""


def misplaced(example: Any, first: dict[str, Any]) -> tuple[str, str]:
    """Kind and message of what is wrong with an example's id or split; two empty strings if nothing is.

    Args:
        example: has ``id``, ``split`` and ``origin``.
        first: id -> the first example that has it; this one is added.
    """
    earlier = first.setdefault(example.id, example)
    if earlier is not example:
        return "duplicate id", f"{example.id!r} was already given by {earlier.origin}, expected every one once"
    if example.split not in SPLITS:
        hint = nearest(example.split, SPLITS, 0.3)
        return "unknown split", f"found {example.split!r}, expected one of {', '.join(SPLITS)}{hint}"
    return "", ""


def judge(problems: Sequence[Problem], on_bad: str, what: str) -> Report:
    """Refuse or count.

    Raises:
        DataError: there are problems and the policy is to refuse, or some cannot be left out.
    """
    counts = dict(Counter(problem.kind for problem in problems))
    fatal = [problem for problem in problems if problem.fatal]
    if not problems or (on_bad == "drop" and not fatal):
        return Report(counts, [str(problem) for problem in problems])
    ordered = fatal + [problem for problem in problems if not problem.fatal]
    lines = [str(problem) for problem in ordered[:LISTED]]
    if more := Counter(problem.kind for problem in ordered[LISTED:]):
        lines.append(f"... and {more.total()} more: " + ", ".join(f"{n} {kind}" for kind, n in more.most_common()))
    if len(fatal) < len(problems):
        left_out = len(problems) - len(fatal)
        lines.append(f"Mend them, or leave {left_out} of them out of training and evaluation with dataset.on_bad=drop")
    noun = "problem" if len(problems) == 1 else "problems"
    raise DataError(lines, f"{len(problems)} {noun} with the data for {what}:")


def first_report(dataset: Any, splits: Mapping[str, Any], problems: Sequence[Problem], kind: str) -> Report:
    """:func:`judge` of what a dataset gave. A split without an example is said where nothing worse explains it.

    Args:
        dataset: the spec.
        splits: what is left of the data.
        problems: with the rest.
        kind: what one example is called.
    """
    fatal = any(problem.fatal for problem in problems)
    empty = [] if fatal else empty_splits(splits, kind, dataset)
    return judge([*problems, *empty], dataset.on_bad, f"dataset {type(dataset).__name__}")


def empty_splits(splits: Mapping[str, Any], kind: str, dataset: Any) -> Iterable[Problem]:
    """A fatal problem for each split that must not be empty and is.

    Args:
        kind: what one example is called.
        dataset: the spec; without ``dataset.split`` train and test are wanted, unless train is streamed.
    """
    sizes = ", ".join(f"{name} {len(split)}" for name, split in splits.items())
    measured = [name for name in ("test", "validation") if len(splits[name])]
    wanted = [name for name in ("train", "test") if name in dataset.kept]
    for name in (dataset.split,) if dataset.split else wanted:
        if not len(splits[name]):
            here = name == "train" and measured
            hint = f"; dataset.split={measured[0]} measures a trained run on {measured[0]} alone" if here else ""
            message = f"no usable {kind} is left in it ({sizes}), expected at least one{hint}"
            yield Problem("empty split", name, message, fatal=True)


def progress() -> Any:
    """Bars on standard error while it is a terminal, silence otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
