"""Flags of ``toolkit run``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import ConfigError

SHORT = {
    "-c": "--cfg",
    "-p": "--package",
    "-m": "--multirun",
    "-r": "--run",
    "-i": "--info",
    "-cd": "--config-dir",
    "-sc": "--shell-completion",
    "-cp": "--config-path",
    "-cn": "--config-name",
}
SWITCHES = ("--resolve", "--multirun", "--run", "--hydra-help", "--shell-completion", "--version")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
VALUES: dict[str, tuple[str, ...]] = {  # flag with a value -> the values that it takes; (): any
    "--cfg": ("job", "hydra", "all"),
    "--package": (),
    "--info": INFO,
    "--config-dir": (),
}
REFUSED = {  # flags of Hydra that this program refuses -> reason
    "--experimental-rerun": "not supported, because it reads a pickle; use resume=RUN_FOLDER",
    "--config-path": "not supported; use --config-dir for groups and recipes of your own",
    "--config-name": "not supported; use recipe=NAME",
}
SHOWING = ("--cfg", "--info", "--hydra-help", "--shell-completion", "--version")  # each shows something and stops
OF_CFG = ("--resolve", "--package")


@dataclass
class Flags:
    """The command line.

    Args:
        overrides: the words that are no flags.
        values: flag -> value; "" for one that takes none.
        folders: of ``--config-dir``.
    """

    overrides: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)


def parse(argv: Sequence[str]) -> Flags:
    """Separate the flags of a command line from its overrides.

    Raises:
        ConfigError: with every problem.
    """
    flags, problems = Flags(), list[str]()
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            flags.overrides += words
            break
        if word.startswith("-"):
            problems += _read(word, words, flags)
        else:
            flags.overrides.append(word)
    problems += _conflicts(flags.values)
    if problems:
        raise ConfigError(problems)
    return flags


def _read(word: str, words: list[str], flags: Flags) -> list[str]:
    """Read a flag, and the value that may follow it; return its problems."""
    given, equals, value = word.partition("=")
    name = SHORT.get(given, given)
    if name in REFUSED:
        return [f"{name}: {REFUSED[name]}"]
    if name in SWITCHES:
        flags.values[name] = ""
        return [f"{name}: found {value!r}, expected no value"] if equals else []
    if name not in VALUES:
        close = difflib.get_close_matches(name, [*SWITCHES, *VALUES, "--help"], 1, 0.6)
        return [f"{given}: unknown flag" + (f"; did you mean {close[0]}?" if close else "; --help lists them")]
    if not equals and name == "--info" and (not words or words[0].startswith("-") or "=" in words[0]):
        value = "all"
    elif not equals and words and not words[0].startswith("-"):
        value = words.pop(0)
    flags.values[name] = value
    choices = VALUES[name]
    if not value or (choices and value not in choices):
        expected = f"one of {', '.join(choices)}" if choices else "a folder" if name == "--config-dir" else "a key"
        return [f"{name}: {f'found {value!r}' if value else 'not given'}, expected {expected}"]
    if name == "--config-dir":
        flags.folders.append(Path(value))
    return []


def _conflicts(values: dict[str, str]) -> list[str]:
    """Return the problems of flags that are given together, or without another."""
    problems = []
    if "--cfg" not in values:
        problems += [f"{name}: not supported without --cfg; add --cfg job" for name in OF_CFG if name in values]
    showing = [name for name in SHOWING if name in values]
    problems += [f"{other}: not supported with {showing[0]}; set one of them" for other in showing[1:]]
    if "--run" in values and "--multirun" in values:
        problems.append("--run: not supported with -m; set one of them")
    return problems
