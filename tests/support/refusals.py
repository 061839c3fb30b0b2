"""Runs that are refused, many of them in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Refusals:
    """Exit code and standard error of each run, and the frameworks that were loaded meanwhile."""

    found: list[tuple[int, str]]
    loaded: list[str]


def refuse(cases: Sequence[Sequence[str]], cache: Path) -> Refusals:
    """Do the runs of these command lines in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers.refused", *map(json.dumps, cases)],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"TOOLKIT_CACHE": str(cache)},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    return Refusals([(code, text) for code, text in said["found"]], said["loaded"])
