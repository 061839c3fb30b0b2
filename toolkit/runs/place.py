"""Place of a run folder: its name is claimed before the run starts, and a run that is refused leaves nothing there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import ConfigError, DataError, RunError, room
from toolkit.training import processes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from toolkit.config.schema import Run

MOST = 10_000  # folders of one name
DROPPED = "dropped.txt"
LEFT = (".lock", "run.log", "learned", DROPPED)  # what a run writes before its data is accepted
MARKS = (".lock", "environment.json")  # of the folder of a run
REPLACED = ("config.yaml", "results.json", "metrics.jsonl", "examples.jsonl", "learned")  # what a run writes over


@dataclass
class Claim:
    """Run with a folder of its own.

    Args:
        run: its ``run_dir`` is the folder.
        made: folders that did not exist before, the run folder first.
        before: names in the folder before the run.
        code: exit code of the run, once it has ended.
    """

    run: Run
    made: list[Path]
    before: frozenset[str] = frozenset()
    code: int = 0

    def free(self) -> None:
        """Remove what the run wrote and the folders that were made for it, unless there are results."""
        folder = Path(self.run.run_dir)
        if processes.own_rank(self.run) or in_use(folder):  # the files are those of rank 0, or of another run
            return
        written = _names(folder) - self.before
        if written - {*LEFT}:
            return
        for path in (folder / name for name in written):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # of another run that was begun there
            for made in self.made:
                made.rmdir()


def in_use(folder: Path) -> bool:
    """Tell if a process holds the lock of a run folder."""
    if fcntl is None or not (folder / ".lock").exists():
        return False
    with open(folder / ".lock", "r+", encoding="utf-8") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)
    return False


@contextlib.contextmanager
def claimed(run: Run, overrides: Sequence[str]) -> Iterator[Claim]:
    """Claim the folder of a run for the ``with`` block; free it again if the run is refused there.

    A folder that the command line does not name gets the first free of the names ``DATE_TIME``, ``DATE_TIME_2``, ...,
    so that runs that are started in the same second do not share one.

    Raises:
        ConfigError: the folder has files that no run left, which the run would write over.
        RunError: the folder cannot be written.
    """
    path = Path(run.run_dir)
    named = run.resume or any(word.lstrip("+").startswith("run_dir=") for word in overrides)
    made = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    if not named and processes.own_rank(run) is None:  # ranks on several machines have to agree on the name
        path = numbered(path)
        made = [path, *(folder for folder in made if folder in path.parents)]
        run = replace(run, run_dir=str(path))
    claim = Claim(run, made, _names(path))
    if not claim.before.intersection(MARKS) and (lost := claim.before.intersection(REPLACED)):
        found = f"{path} is not the folder of a run, and the run would write over {', '.join(sorted(lost))}"
        raise ConfigError(f"run_dir: {found}; choose another folder")
    try:
        yield claim
    except (ConfigError, DataError):
        claim.free()
        raise
    if claim.code == DataError.code:  # the processes of a run on several devices were refused
        claim.free()


def _names(folder: Path) -> frozenset[str]:
    """Return the names in a folder; none if it cannot be read."""
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def unwritable(path: Path, error: OSError) -> RunError:
    """Return the error of a run folder that cannot be written."""
    return RunError(f"run_dir: {path} cannot be written ({error.strerror}; {room(path)}); choose another folder")


def numbered(path: Path) -> Path:
    """Make the first of the folders ``path``, ``path_2``, ... that does not exist.

    Raises:
        RunError: it cannot be written.
    """
    names = (path.name, *(f"{path.name}_{number}" for number in range(2, MOST)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for name in names:
            with contextlib.suppress(FileExistsError):
                (folder := path.with_name(name)).mkdir()
                return folder
    except OSError as error:
        raise unwritable(path, error) from error
    raise RunError(f"run_dir: {path} and {MOST} more of that name exist; set run_dir=FOLDER")
