"""Entry point of ``python -m toolkit.run``, the same command as ``python -m toolkit run``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from toolkit.cli import run as command
from toolkit.cli.guard import guarded


def main() -> None:
    """Run the command that the arguments of the process describe."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run the command that ``argv`` describes and return its exit code."""
    return guarded(lambda: command.main(argv))


if __name__ == "__main__":
    main()
