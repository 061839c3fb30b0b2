"""Problems with data: detected before the first step, listed together, and refused or dropped by ``on_bad``."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from toolkit.errors import DataError

if TYPE_CHECKING:
    from toolkit.data.source import Source

T = TypeVar("T")

LISTED = 50  # problems printed in full; the rest is counted by kind


@dataclass(frozen=True)
class Problem:
    """A problem with the data.

    Args:
        kind: a few words by which problems are counted.
        where: the file and record.
        message: what was found, what was expected, and how to fix it.
        fatal: dropping examples does not help, so ``on_bad=drop`` refuses it too.
        split: of the example; empty: it is not known, or the problem is with more than one example.
    """

    kind: str
    where: str
    message: str
    fatal: bool = False
    split: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.message}"


@dataclass(frozen=True)
class Report:
    """The examples that ``on_bad=drop`` left out: kind of problem -> number, and a line for each.

    ``notes`` are lines about examples that were kept.
    """

    dropped: dict[str, int]
    lines: list[str]
    notes: tuple[str, ...] = ()

    def __add__(self, other: Report) -> Report:
        dropped = dict(Counter(self.dropped) + Counter(other.dropped))
        return Report(dropped, self.lines + other.lines, self.notes + other.notes)


def parted(items: Iterable[T | Problem]) -> tuple[list[T], list[Problem]]:
    """Separate the examples that a dataset yields from the problems."""
    all_items = list(items)
    return [i for i in all_items if not isinstance(i, Problem)], [i for i in all_items if isinstance(i, Problem)]


def nearest(name: str, options: Iterable[object], likeness: float = 0.6, prefix: str = "") -> str:
    """Ask whether one of the options was meant; empty where none is similar enough.

    Args:
        name: what was found.
        options: what it may be.
        likeness: from 0 to 1, of the name and an option.
        prefix: of the option in the question.
    """
    matches = difflib.get_close_matches(name, [str(o) for o in options], 1, likeness)
    return f"; did you mean {prefix + matches[0]!r}?" if matches else ""


def bad_name(name: str) -> tuple[str, str]:
    """Return kind and message of a name that is not UTF-8 or has control characters, else two empty strings."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "bad name", f"found {name!a}, expected a name in UTF-8 without control characters"
    return "", ""


def judge(
    problems: Sequence[Problem], on_bad: str, what: str, allowed: Mapping[str, int] = MappingProxyType({})
) -> Report:
    """Refuse the data, or count what is dropped.

    Args:
        problems: all problems.
        on_bad: the dataset's policy, "refuse" or "drop".
        what: the use of the data, for the headline.
        allowed: split -> the most examples that are dropped though the policy is to refuse; a problem with anything but
            examples is refused.

    Raises:
        DataError: there are more problems than allowed and the policy is to refuse, or some are fatal.
    """
    counts = dict(Counter(problem.kind for problem in problems))
    fatal = [problem for problem in problems if problem.fatal]
    of_split = Counter(problem.split for problem in problems)
    few = all(count <= allowed.get(split, 0) for split, count in of_split.items())
    if not problems or (not fatal and (on_bad == "drop" or few)):
        return Report(counts, [str(problem) for problem in problems])
    ordered = fatal + [problem for problem in problems if not problem.fatal]
    lines = [str(problem) for problem in ordered[:LISTED]]
    if more := Counter(problem.kind for problem in ordered[LISTED:]):
        lines.append(f"... and {more.total()} more: " + ", ".join(f"{n} {kind}" for kind, n in more.most_common()))
    if on_bad != "drop" and not fatal:
        limits = {split: most for split, most in allowed.items() if 0 < most < of_split[split]}
        exceeded = " and ".join(f"{most} of {split}" for split, most in limits.items())
        limit = f", more than the {exceeded} that dataset.max_dropped allows," if limits else ""
        lines.append(f"Fix them, or drop them{limit} with dataset.on_bad=drop")
    noun = "problem" if len(problems) == 1 else "problems"
    raise DataError(lines, f"{len(problems)} {noun} with the data for {what}:")


def empty_splits(splits: Mapping[str, Sized], dataset: Source) -> Iterable[Problem]:
    """Yield a fatal problem for each split that must not be empty and is.

    Without ``dataset.split`` train and test are needed, except a train split that is streamed.
    """
    sizes = ", ".join(f"{name} {len(split)}" for name, split in splits.items())
    measured = [name for name in ("test", "validation") if len(splits[name])]
    wanted = [name for name in ("train", "test") if name in dataset.kept]
    for name in (dataset.split,) if dataset.split else wanted:
        if not len(splits[name]):
            evaluable = name == "train" and measured
            hint = f"; dataset.split={measured[0]} evaluates a trained run on {measured[0]} only" if evaluable else ""
            message = f"no usable example is left in it ({sizes}), expected at least one{hint}"
            yield Problem("empty split", name, message, fatal=True)
