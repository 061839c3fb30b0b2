"""Runs on a file system with too little room: ``python -m tests.workers.small_disk FOLDER``.

Three pages more are free each time, until a run ends. Exit code 77: no file system may be mounted here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.faults import disk
from toolkit.cli import guard

PAGE = 4096  # bytes


def mount(folder: Path) -> None:
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(77)


def fill(filler: Path, pages: int) -> None:
    """Leave ``pages`` pages of the file system free."""
    stat = ["stat", "-f", "-c", "%a", str(filler.parent)]
    room = int(subprocess.run(stat, capture_output=True, text=True, check=True).stdout)
    filler.write_bytes(bytes(PAGE * (room - pages)))


def main(folder: Path) -> None:
    mount(folder)
    disk.live(folder / "whole")
    whole, filler = disk.left(folder / "whole"), folder / "filler"
    pages, code = 0, 1
    while code:
        pages += 3
        subprocess.run(["rm", "-rf", str(folder / "run")], check=True)
        fill(filler, pages)
        code = guard.guarded(lambda: disk.live(folder / "run") or 0)  # type: ignore[func-returns-value]
        print("code", code, file=sys.stderr)
        filler.unlink()
        assert code in (0, 1)
        disk.live(folder / "run")
        assert disk.left(folder / "run") == whole, pages
    assert pages > 5


if __name__ == "__main__":
    main(Path(sys.argv[1]))
