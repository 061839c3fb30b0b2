"""The command line: ``python -m toolkit.sweeps FOLDER`` shows a sweep again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import ConfigError

USAGE = """\
usage: python -m toolkit.sweeps FOLDER

Shows the table of a sweep, as far as it has come, and writes its sweep.csv and sweep.html anew.
A sweep is made by: python -m toolkit.run recipe=NAME KEY=VALUE,VALUE ... -m
"""


def main() -> None:
    """Entry point of ``python -m toolkit.sweeps``."""
    from toolkit.run import guarded

    argv = sys.argv[1:]
    if len(argv) != 1 or argv[0] in ("-h", "--help"):
        print(USAGE.rstrip())
        sys.exit(0 if len(argv) == 1 else 2)
    sys.exit(guarded(lambda: show(argv)))


def show(argv: Sequence[str]) -> int:
    """Show the sweep of a folder.

    Raises:
        ConfigError: there is none.
    """
    from rich.console import Console

    from toolkit.sweeps import page, state

    folder = Path(argv[0])
    found = state.load(folder)
    if found is None:
        raise ConfigError(f"{folder}: has no {state.FILE}, expected the folder of a sweep")
    Console().print(page.table(found, {}))
    page.write(found, folder)
    return 0


if __name__ == "__main__":
    main()
