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

    A path that needs quotes is a problem too, and read as if it had them, so that the rest can be checked. A number or
    a truth value in the place of a path is a name: ``run_dir=2024_01`` is not the folder 202401.
    """
    parser = OverridesParser.create()
    overrides = []
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except (HydraException, ValueError, RecursionError) as error:  # thousands of digits or of brackets
            if path := literal(argument):
                overrides.append(path)
                problems.append(f"{argument}: the path needs quotes; write {shown(path)}")
            else:
                why = f" ({one_line(error)})" if "=" in argument else ""
                problems.append(f"{argument}: not an override, expected KEY=VALUE{why}")
            continue
        value = None if override.is_sweep_override() else override.value()
        if not override.key_or_group:
            problems.append(f"{argument}: not an override, expected KEY=VALUE")
        elif isinstance(value, (list, dict, int, float)) and (path := literal(argument)):
            overrides.append(path)
            if isinstance(value, (list, dict)):
                kind = "list" if isinstance(value, list) else "mapping"
                problems.append(f"{argument}: found a {kind}, expected one path; for that name, write {shown(path)}")
        else:
            overrides.append(override)
    return overrides


def literal(argument: str) -> Override | None:
    """Return an override of a path with its value read as it stands; None for an override of another field."""
    key, _, text = argument.partition("=")
    if key.lstrip("+") not in FIELDS or not text:
        return None
    try:
        override = OverridesParser.create().parse_override(f"{key}={quoted(text)}")
    except (HydraException, ValueError, RecursionError):
        return None
    return override if override.value() == text else None


def shown(override: Override) -> str:
    """Return an override as a word for a shell."""
    return shlex.quote(str(override.input_line))


def one_path(override: Override) -> str:
    """Return the problem with several values that are one path with a comma; empty for other overrides."""
    argument = str(override.input_line)
    path, place = literal(argument), expand(argument.partition("=")[2])
    if path is None or not (override.key_or_group == "run_dir" or os.path.lexists(place)):
        return ""
    return f"{argument}: found several values, expected one path; a path with a comma needs quotes; write {shown(path)}"
