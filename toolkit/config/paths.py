"""Folders of the configs, and the rule for paths of the user; without Hydra, so that help is there at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "_conf" if (_PACKAGE / "_conf").is_dir() else _PACKAGE.parent / "conf"
RECIPES = _PACKAGE / "_recipes" if (_PACKAGE / "_recipes").is_dir() else _PACKAGE.parent / "recipes"
FIELDS = ("run_dir", "resume", "evaluate", "dataset.path", "dataset.repository")  # fields of a config that may be paths


def expand(path: str) -> str:
    """Return a path of the user with a leading ``~`` or ``~NAME`` replaced by that home folder.

    Everything that takes a path calls this once, where it is read; ``./~`` is a file called ``~``.
    """
    return os.path.expanduser(path)


def quoted(text: str) -> str:
    """Return a text in quotes, as a value in Hydra's grammar of overrides."""
    escaped = re.sub(r'(\\*)("|\Z)', lambda match: match[1] * 2 + match[2].replace('"', '\\"'), text)
    return f'"{escaped}"'
