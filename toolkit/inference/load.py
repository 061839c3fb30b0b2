"""Load a :class:`~toolkit.runs.predictor.Predictor` from a run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.config import compose, paths, process, schema
from toolkit.data import pipeline
from toolkit.data.columns.column import columns_of
from toolkit.runs import checkpoint, job, resume
from toolkit.runs.predictor import Predictor

# a predictor runs on one device, whatever the run was trained on; loader workers would be started for every chunk
ONE_PROCESS = ("trainer.devices=1", "trainer.nodes=1", "trainer.strategy=auto", "trainer.workers=0")


def load(
    run_folder: str | Path,
    backend: str | None = None,
    overrides: Sequence[str] = (),
    warn: Callable[[str], None] = print,
    folders: Sequence[Path] = (),
) -> Predictor:
    """Load the best checkpoint of a run.

    The first call fixes the framework of the process: the other one can no longer be imported.

    Args:
        run_folder: folder of the run.
        backend: "torch" or "tf"; None: the one that trained the run.
        overrides: overrides of the run's config, such as ``task.decoder=beam``.
        warn: gets a line for each damaged checkpoint that another one replaces.
        folders: more folders of groups and recipes, laid out as ``conf/``.

    Raises:
        ConfigError: the folder has no run, or the overrides do not fit it; lists every problem.
        DataError: all checkpoints are damaged.
    """
    folder = Path(paths.expand(str(run_folder)))
    compose.earlier(folder)
    chosen = [f"backend={backend}"] if backend else []
    run = schema.check([f"evaluate={paths.quoted(str(folder))}", *ONE_PROCESS, *chosen, *overrides], folders)
    process.prepare(run.backend)
    best = checkpoint.choose(folder / "checkpoints", "best", warn)
    resume.check(run, resume.changes(best.about.config, schema.plain(run)), best)
    columns = columns_of(run)
    learned = pipeline.load(columns, best.path / checkpoint.LEARNED)
    engine = job.build_engine(run, learned)
    job.load_checkpoint(engine, best, weights_only=True)
    return Predictor(run, columns, learned, engine)
