"""What datasets in a folder of one's own share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from toolkit.corpus import Problem

# Other names of splits
ALIASES = {"training": "train", "dev": "validation", "val": "validation", "valid": "validation", "testing": "test"}


def split_of(folder: Path) -> str:
    """The split that a folder's name may mean."""
    name = folder.name.lower()
    return ALIASES.get(name, name)


def unusable(root: Path, holds: str, layouts: str) -> Problem | None:
    """What is wrong with a path that should be a folder with something in it.

    Args:
        root: the path.
        holds: what is in such a folder.
        layouts: how it may lie there.
    """
    where = f"dataset.path={root}"
    if not root.exists():
        siblings = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
        message = f"no such folder (looked for {root.absolute()}){nearest(root.name, siblings)}"
        return Problem("missing folder", where, message, fatal=True)
    if not root.is_dir():
        return Problem("not a folder", where, f"found a file, expected the folder that holds the {holds}", fatal=True)
    if not any(root.iterdir()):
        return Problem("empty folder", where, f"found nothing, expected {layouts}", fatal=True)
    return None


def name_in(root: Path, path: Path) -> str:
    """A path as the user sees it: relative to the dataset's folder."""
    return path.relative_to(root).as_posix() if path != root else str(root)


def nearest(name: str, options: Iterable[object]) -> str:
    """A question whether one of the options was meant; empty where none is like the name."""
    found = difflib.get_close_matches(name, [str(o) for o in options], 1, 0.6)
    return f"; did you mean {found[0]!r}?" if found else ""
