"""``check=true``: describe the data of a run on the terminal and on a page, and stop before a framework is loaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config import process
from toolkit.errors import DataError, writing

if TYPE_CHECKING:
    from toolkit.config.schema import Run

PAGE = "check.html"


def describe(run: Run, overrides: Sequence[str]) -> int:
    """Describe the data of a run, and return the exit code.

    Args:
        run: checked specs.
        overrides: of the command line.

    Raises:
        DataError: the run would be refused. The page is there all the same.
    """
    process.hide(set().union(*process.FOREIGN.values()))  # some libraries import a framework that they find
    from toolkit.reports import data
    from toolkit.reports.survey import survey

    try:
        result = survey(run)
    except DataError as error:
        print(_write(run, overrides, data.refused_page(run, error)))
        raise
    path = _write(run, overrides, data.as_page(result))
    text = f"{data.as_text(result)}\n\n{path}"
    print(text.encode("utf-8", "backslashreplace").decode(), flush=True)  # names of files that are not UTF-8
    if result.refusal is not None:
        raise result.refusal
    return 0


def _folder(run: Run, overrides: Sequence[str]) -> Path:
    """Return the folder of the page; without a name on the command line, a new one."""
    from toolkit.runs.place import numbered

    if any(word.lstrip("+").startswith("run_dir=") for word in overrides):
        return Path(run.run_dir)
    return numbered(Path("outputs/checks") / run.recipe / time.strftime("%Y-%m-%d_%H-%M-%S"))


def _write(run: Run, overrides: Sequence[str], page: str) -> Path:
    """Write the page and return its path."""
    from toolkit.runs.checkpoint import write

    path = _folder(run, overrides) / PAGE
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, page.encode("utf-8", "backslashreplace"))
    return path
