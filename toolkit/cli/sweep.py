"""``toolkit sweep``: run a sweep, or show one again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from toolkit.cli import run
from toolkit.cli.guard import guarded
from toolkit.config.paths import expand
from toolkit.errors import ConfigError

SUMMARY = "run a sweep, or show the table of one"
USAGE = """\
usage: python -m toolkit sweep recipe=NAME KEY=VALUE,VALUE ... [KEY=VALUE ...]
       python -m toolkit sweep FOLDER

Runs a sweep, like python -m toolkit.run ... -m; python -m toolkit.run --help lists the overrides
(docs/guide/sweeps.md). With the folder of a sweep, shows its table, even while it runs, and rewrites its sweep.csv and
sweep.html.

exit codes
  0 done   1 a run failed   2 bad config or data   130, 143 interrupted; the same command resumes

examples
  python -m toolkit sweep recipe=asr backend=torch,tf optimizer.lr=1e-3,3e-3
  python -m toolkit sweep recipe=asr sweep=optuna "optimizer.lr=tag(log,interval(1e-4,1e-2))"
  python -m toolkit sweep multirun/asr/2030-01-01_12-00-00
"""


def main(argv: Sequence[str]) -> int:
    """Run or show a sweep and return the exit code."""
    if not argv or {"-h", "--help"} & set(argv):
        print(USAGE.rstrip())
        return 0
    if len(argv) == 1 and ("=" not in argv[0] or os.path.isdir(expand(argv[0]))):
        return guarded(lambda: show(Path(expand(argv[0]))))
    return run.main(argv if {"-m", "--multirun"} & set(argv) else [*argv, "-m"])


def show(folder: Path) -> int:
    """Show the sweep in a folder.

    Raises:
        ConfigError: the folder holds none.
    """
    from rich.console import Console

    from toolkit.sweeps import page, state

    sweep = state.load(folder)
    if sweep is None:
        raise ConfigError(f"{folder}: has no {state.FILE}, expected the folder of a sweep")
    Console().print(page.table(sweep, {}))
    page.write(sweep, folder)
    return 0
