"""A run that says what it is at, to be killed: ``python -m tests.workers.killable PHASE ARGUMENTS``.

It does what ``python -m toolkit.run ARGUMENTS`` does; the first byte of the file ``PHASE`` is its place in ``PHASES``.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

PHASES = ("start-up", "step", "validation", "save", "final evaluation")


def watch(file: str) -> None:
    """Keep the current phase of this process, by its place in ``PHASES``, in the first byte of ``file``."""
    from toolkit.runs import job
    from toolkit.runs.folder import RunFolder
    from toolkit.training import loop
    from toolkit.training.session import Session

    with open(file, "r+b") as handle:
        marks = mmap.mmap(handle.fileno(), 1)

    def during(owner: Any, name: str, phase: str, then: str = "") -> None:
        inner = getattr(owner, name)

        def marked(*args: Any, **kwargs: Any) -> Any:
            before = marks[0]
            marks[0] = PHASES.index(phase)
            try:
                return inner(*args, **kwargs)
            finally:
                marks[0] = PHASES.index(then) if then else before

        setattr(owner, name, marked)

    during(loop, "fit", "step", "final evaluation")
    during(Session, "validate", "validation")
    during(RunFolder, "save", "save")
    during(job, "_finish", "final evaluation", "final evaluation")


if __name__ == "__main__":
    watch(sys.argv[1])
    from toolkit import run

    sys.exit(run.run(sys.argv[2:]))
