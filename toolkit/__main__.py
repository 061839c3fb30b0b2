"""The command line: ``python -m toolkit VERB``, and the console script ``toolkit VERB``.

A verb is a file in ``toolkit/cli`` with ``SUMMARY``, its line in the help, and ``main(argv)``, which returns the exit
code. Its module imports neither Hydra nor a framework, so that the help is there at once.
"""

from __future__ import annotations

import difflib
import pkgutil
import sys
from collections.abc import Sequence
from typing import Protocol

from toolkit import cli
from toolkit.cli.guard import guarded
from toolkit.config.build import load_module

SHARED = ("check", "flags", "guard")  # modules of toolkit/cli that are no verb
USAGE = """\
usage: toolkit VERB [ARGUMENT ...]
       python -m toolkit VERB [ARGUMENT ...]

verbs
{verbs}

toolkit VERB --help describes a verb.
"""


class Verb(Protocol):
    """Module of a verb."""

    SUMMARY: str

    def main(self, argv: Sequence[str]) -> int:
        """Run the command and return its exit code."""
        ...


def main() -> None:
    """Run the command that the arguments of the process name."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run the verb ``argv[0]`` with the other arguments and return its exit code."""
    return guarded(lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if argv[0] not in verbs():
        print(unknown(argv), file=sys.stderr)
        return 2
    return verb(argv[0]).main(argv[1:])


def verbs() -> list[str]:
    """Return the names of all verbs."""
    return sorted(module.name for module in pkgutil.iter_modules(cli.__path__) if module.name not in SHARED)


def verb(name: str) -> Verb:
    """Import the module of a verb."""
    module: Verb = load_module("toolkit.cli", name)
    return module


def help_text() -> str:
    """Return the text of ``toolkit --help``."""
    return USAGE.format(verbs="\n".join(f"  {name:<10} {verb(name).SUMMARY}" for name in verbs())).rstrip()


def unknown(argv: Sequence[str]) -> str:
    """Return the message about a verb that does not exist."""
    name = argv[0]
    close = f"run {name}" if "=" in name else next(iter(difflib.get_close_matches(name, verbs(), 1, 0.5)), None)
    hint = f"; did you mean toolkit {close}?" if close else ""
    return f"toolkit: found {name!r}, expected one of {', '.join(verbs())}{hint}"


if __name__ == "__main__":
    main()
