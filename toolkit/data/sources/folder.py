"""Functions of the datasets that read a folder of the user's data."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.data.problems import Problem, nearest

# Other names of splits
ALIASES = {"training": "train", "dev": "validation", "val": "validation", "valid": "validation", "testing": "test"}

# Names of files that accompany data
_BESIDE = re.compile(
    r"(readme|licen[cs]e|copying)\b.*|(notice|citation|changelog|authors?|acknowledge?ments)(\.[a-z]+)*", re.IGNORECASE
)


def is_beside(name: str) -> bool:
    """Tell whether a file accompanies data by its name, as a README does."""
    return bool(_BESIDE.fullmatch(name))


def split_of(folder: Path) -> str:
    """Return the split that a folder's name stands for, or the name itself."""
    name = folder.name.lower()
    return ALIASES.get(name, name)


def unusable(root: Path, holds: str, layouts: str) -> Problem | None:
    """Return the problem with a path that should be a folder with files; None if there is none.

    Args:
        root: the path.
        holds: the kind of files, for messages.
        layouts: the expected layout, for messages.
    """
    where = f"dataset.path={root}"
    if not os.path.exists(root):  # unlike the method of a path, it does not raise for a name that is too long
        siblings = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
        message = f"no such folder (looked for {root.absolute()}){nearest(root.name, siblings)}"
        if os.path.islink(root):
            message = f"a link to {os.readlink(root)}, where nothing is"
        return Problem("missing folder", where, message, fatal=True)
    if not root.is_dir():
        return Problem("not a folder", where, f"found a file, expected the folder that holds the {holds}", fatal=True)
    try:
        empty = not any(root.iterdir())
    except OSError as error:
        return Problem("unreadable", where, f"{error.strerror}, expected a folder to read", fatal=True)
    if empty:
        return Problem("empty folder", where, f"found nothing, expected {layouts}", fatal=True)
    return None


def name_in(root: Path, path: Path) -> str:
    """Return a path as the user sees it: relative to the dataset's folder."""
    return path.relative_to(root).as_posix() if path != root else str(root)


def cut(
    examples: Sequence[Any],
    groups: Mapping[str, Sequence[Any]],
    validation: float,
    test: float,
    seed: int,
    too_large: str,
    needed: Callable[[Any], Iterable[str]] = lambda example: (),
) -> Iterator[Any]:
    """Move groups of the training split to validation and test, ordered by a hash of seed and the group's key.

    A group that has something which train would lack without it, such as a rare character, stays in train, unless a
    split would be empty then.

    Args:
        examples: of all splits, dataclasses with ``id`` and ``split``.
        groups: examples of the training split that stay together, by key.
        validation, test: fractions of the training split.
        seed: selects the groups.
        too_large: message for a split that stays empty.
        needed: example -> what train must have if any example has it.

    Yields:
        a problem for each such split, then the examples.
    """
    keys = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "replace")).digest())
    needs = {key: {item for example in group for item in needed(example)} for key, group in groups.items()}
    fractions = {"test": test, "validation": validation}
    fixed: set[str] = set()
    moved = free = _moved(keys, groups, fractions, fixed)
    while lacking := _lacking(needs, moved):
        fixed |= lacking
        moved = _moved(keys, groups, fractions, fixed)
    if set(moved.values()) != set(free.values()):  # so few groups that each has something of its own
        moved = free
    for split, fraction in fractions.items():
        if fraction and groups and split not in moved.values():
            yield Problem("no split", split, too_large, fatal=split == "test")
    split_of_id = {example.id: split for key, split in moved.items() for example in groups[key]}
    for example in examples:
        moved_to = example.split == "train" and split_of_id.get(example.id)
        yield dataclasses.replace(example, split=moved_to) if moved_to else example


def _moved(
    keys: Sequence[str], groups: Mapping[str, Sequence[Any]], fractions: Mapping[str, float], fixed: Collection[str]
) -> dict[str, str]:
    """Choose the groups that leave train, and their splits; those in ``fixed`` stay."""
    total = sum(len(group) for group in groups.values())
    moved: dict[str, str] = {}
    for split, fraction in fractions.items():
        room = round(fraction * total) or int(fraction > 0)
        for key in keys:
            # One group must stay for training. A group too large for the remaining room waits for the next split.
            free = key not in moved and key not in fixed
            if free and len(groups[key]) <= room and len(moved) + 1 < len(keys):
                moved[key] = split
                room -= len(groups[key])
    return moved


def _lacking(needs: Mapping[str, Collection[str]], moved: Collection[str]) -> set[str]:
    """Return the groups that leave train and have something that no group in train has."""
    kept = {item for key, items in needs.items() if key not in moved for item in items}
    return {key for key in moved if not kept.issuperset(needs[key])}
