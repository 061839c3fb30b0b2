"""``toolkit certify``: certify that the twins of a recipe train alike."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.cli.guard import guarded
from toolkit.errors import ConfigError

SUMMARY = "certify that both frameworks train a recipe alike"
USAGE = """\
usage: python -m toolkit certify recipe=NAME [steps=100] [decode=64] [gates=all|semantics] [KEY=VALUE ...]

Trains both twins of a recipe from the same weights on the same batches, compares them, and writes certificate.json and
certificate.html. See docs/design/twins.md for the gates.

arguments
  steps=N                 optimizer steps of each training (100); with 2 or more, the framework is also changed halfway
  decode=N                test examples decoded by both from the same checkpoint (64)
  gates=all|semantics     semantics: float64 only, four trainings instead of fifteen
  run_dir=FOLDER          folder of the certificate (outputs/certificates/RECIPE/DATE_TIME)
  KEY=VALUE               any override of toolkit.run except backend, resume, evaluate and trainer.precision

flags
  --config-dir FOLDER     more options and recipes: GROUP/NAME.yaml, recipe/NAME.yaml

exit codes
  0 certified   1 the twins differ, or a training failed   2 bad config or data

examples
  python -m toolkit certify recipe=asr model=conformer_ctc
  python -m toolkit certify recipe=translation trainer.accumulate=2 steps=20
"""
OWN = {"steps": 100, "decode": 64}


def main(argv: Sequence[str]) -> int:
    """Make a certificate and return the exit code."""
    from toolkit.training.processes import own_temporary_folder

    if not argv or {"-h", "--help"} & set(argv):
        print(USAGE.rstrip())
        return 0
    own_temporary_folder()
    # on SIGTERM it ends its workers too and leaves nothing incomplete
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    return guarded(lambda: run(argv))


def run(argv: Sequence[str]) -> int:
    """Make a certificate.

    Returns:
        the exit code.

    Raises:
        UserError: bad arguments, config or data; a training that failed.
    """
    numbers, semantics_only, overrides, folders = parse(argv)
    from toolkit.certify.make import make

    command = ["python", "-m", "toolkit", "certify", *argv]
    return int(not make(overrides, folders, numbers["steps"], numbers["decode"], semantics_only, command).passed)


def parse(argv: Sequence[str]) -> tuple[dict[str, int], bool, list[str], list[Path]]:
    """Parse the arguments; return the numbers of ``OWN``, whether semantics only, the overrides, and config folders."""
    numbers, semantics_only, overrides, folders, problems = dict(OWN), False, [], [], []
    words = list(argv)
    while words:
        word = words.pop(0)
        key, _, value = word.partition("=")
        if key in OWN and "=" in word:
            least = 1 if key == "steps" else 0
            if not value.isdecimal() or int(value) < least:
                problems.append(f"{key}: found {value!r}, expected a whole number, at least {least}")
            else:
                numbers[key] = int(value)
        elif key == "gates" and "=" in word:
            if value not in ("all", "semantics"):
                problems.append(f"gates: found {value!r}, expected all or semantics")
            semantics_only = value == "semantics"
        elif word == "--config-dir" and words:
            folders.append(Path(words.pop(0)))
        elif key == "--config-dir" and value:
            folders.append(Path(value))
        elif word.startswith("-"):
            problems.append(f"{word}: unknown flag, expected --config-dir FOLDER")
        else:
            overrides.append(word)
    if problems:
        raise ConfigError(problems, "no certificate can be made:")
    return numbers, semantics_only, overrides, folders
