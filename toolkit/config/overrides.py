"""Overrides in Hydra's grammar, in which a path may need quotes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from toolkit.config.paths import FIELDS, expand, quoted
from toolkit.config.source import one_line


def parse(arguments: Sequence[str], problems: list[str]) -> list[Override]:
    """Parse overrides; those that cannot be parsed become problems.

    A number or a truth value in the place of a path is a name: ``run_dir=2024_01`` is not the folder 202401.
    """
    parser = OverridesParser.create()
    overrides = []
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except HydraException as error:
            reason = f"the path needs quotes; write {form}" if (form := literal(argument)) else ""
            reason = reason or f"not an override, expected KEY=VALUE ({one_line(error)})"
            problems.append(f"{argument}: {reason}")
            continue
        value = None if override.is_sweep_override() else override.value()
        if not override.key_or_group:
            problems.append(f"{argument}: not an override, expected KEY=VALUE")
        elif isinstance(value, (list, dict)) and (form := literal(argument)):
            kind = "list" if isinstance(value, list) else "mapping"
            problems.append(f"{argument}: found a {kind}, expected one path; if it is the name of one, write {form}")
        elif isinstance(value, (int, float)) and literal(argument):
            key, _, text = argument.partition("=")
            overrides.append(parser.parse_override(f"{key}={quoted(text)}"))
        else:
            overrides.append(override)
    return overrides


def literal(argument: str) -> str:
    """Return an override of a path with the path in quotes, as a word for a shell; empty for another override.

    It was parsed: its value is the path.
    """
    key, _, text = argument.partition("=")
    if key.lstrip("+") not in FIELDS or not text:
        return ""
    form = f"{key}={quoted(text)}"
    try:
        value = OverridesParser.create().parse_override(form).value()
    except HydraException:
        return ""
    return shlex.quote(form) if value == text else ""


def one_path(override: Override) -> str:
    """Return the problem with several values that are one path with a comma; empty for other overrides."""
    argument = str(override.input_line)
    form, path = literal(argument), expand(argument.partition("=")[2])
    if not form or not (override.key_or_group == "run_dir" or os.path.lexists(path)):
        return ""
    return f"{argument}: found several values, expected one path; a path with a comma needs quotes; write {form}"
