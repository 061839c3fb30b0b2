"""From a run folder to a :class:`~toolkit.inference.predictor.Predictor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.config import build, schema
from toolkit.data import pipeline
from toolkit.data.columns.column import columns_of
from toolkit.inference.predictor import Predictor
from toolkit.runs import checkpoint, job, resume

# one device answers, whatever the run was trained on
ALONE = ("trainer.devices=1", "trainer.nodes=1", "trainer.strategy=auto")


def load(
    run_folder: str | Path,
    backend: str | None = None,
    overrides: Sequence[str] = (),
    warn: Callable[[str], None] = print,
) -> Predictor:
    """Load the best checkpoint of a run.

    The first call chooses the framework of the process: the other one cannot be imported any more.

    Args:
        run_folder: of the run.
        backend: "torch" or "tf"; None: the one that trained the run.
        overrides: of the run's config, such as ``task.decoder=beam``.
        warn: gets a line about each damaged checkpoint that another one replaces.

    Raises:
        ConfigError: the folder holds no run, or the overrides do not fit it; with every problem.
        DataError: no checkpoint is whole.
    """
    quoted = str(run_folder).replace("'", "\\'")  # it may have blanks, commas, equals signs
    chosen = [f"backend={backend}"] if backend else []
    run = schema.check([f"evaluate='{quoted}'", *ALONE, *chosen, *overrides])
    build.isolate(run.backend)
    found = checkpoint.choose(Path(run_folder) / "checkpoints", "best", warn)
    resume.check(run, schema.plain(run), found)
    columns = columns_of(run)
    learned = pipeline.load(columns, found.path / checkpoint.LEARNED)
    engine = job.load_engine(run, learned)
    job.put(engine, found)
    return Predictor(run, columns, learned, engine)
