"""Folders of the configs, in a checkout or in an installed package; without Hydra, so that help is there at once."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "_conf" if (_PACKAGE / "_conf").is_dir() else _PACKAGE.parent / "conf"
RECIPES = _PACKAGE / "_recipes" if (_PACKAGE / "_recipes").is_dir() else _PACKAGE.parent / "recipes"
