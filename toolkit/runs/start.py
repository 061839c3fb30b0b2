"""Start a checked run, in this process or in one process for each device that needs one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.config import compose, process, schema
from toolkit.config.schema import Run
from toolkit.errors import ConfigError, Interrupted, RunError
from toolkit.runs.place import claimed
from toolkit.training import processes


def start(run: Run, overrides: Sequence[str], folders: Sequence[Path] = ()) -> int:
    """Execute a run and return its exit code.

    Args:
        run: checked specs.
        overrides: the overrides that describe it.
        folders: folders with more groups and recipes.

    Raises:
        UserError: bad data, or a failed run; existing files stay.
    """
    rank = processes.own_rank(run)
    if processes.must_launch(run, rank):
        words = [word for word in overrides if not word.startswith("run_dir=")]
        arguments = processes.placed(words, run.run_dir, list(folders))
        return processes.launch(arguments, run.trainer.processes(run.backend), run.run_dir)
    if rank:  # only rank 0 prints
        processes.silence()
    process.prepare(run.backend)
    from toolkit.runs import job  # only now that the other framework is hidden from the libraries that look for it

    job.execute(run, schema.plain(run), list(overrides), rank)
    return 0


def train(overrides: Sequence[str], folders: Sequence[Path] = ()) -> Path:
    """Execute the run that overrides describe and return its folder; see :func:`toolkit.train`."""
    if compose.swept(overrides):
        raise ConfigError("found overrides of a sweep, expected one run; start sweeps with toolkit sweep")
    run = schema.check(overrides, folders)
    if run.check:
        raise ConfigError("check: true is not supported in toolkit.train; use the command toolkit run")
    with claimed(run, overrides) as claim:
        code = claim.code = start(claim.run, overrides, folders)
    folder = claim.run.run_dir
    if code > 128:  # the processes of a run on several devices saved a checkpoint after a signal
        raise Interrupted(code - 128, folder)
    if code:
        raise RunError(f"{folder}: the run ended with exit code {code}")
    return Path(folder)
