"""One recipe, two frameworks, the same numbers.

import toolkit

folder = toolkit.train(["recipe=asr", "backend=torch"])
model = toolkit.load(folder)  # with backend="tf": in another process
model(["a.wav"])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.runs.predictor import Predictor

__version__ = "0.1.0"


def train(overrides: Sequence[str], config_dir: str | Path | None = None) -> Path:
    """Train a recipe and evaluate it, as ``toolkit run`` does.

    The first call chooses the framework of the process: the other one cannot be imported any more.

    Args:
        overrides: of the command line: ``["recipe=asr", "backend=tf", "optimizer.lr=1e-3"]``.
        config_dir: a folder with options and recipes of your own, as ``--config-dir`` of the command line.

    Returns:
        the run folder.

    Raises:
        UserError: bad config or data, with every problem, or a run that failed. The processes of a run on several
            devices print the problems of the data on standard error.
        Interrupted: a signal asked the run to stop; it left a checkpoint.
    """
    from toolkit.runs import start

    return start.train(_listed(overrides), _folders(config_dir))


def load(
    run_folder: str | Path,
    backend: str | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
) -> Predictor:
    """Load the best checkpoint of a run; see :func:`toolkit.inference.load.load`.

    Args:
        run_folder: of the run.
        backend: "torch" or "tf"; None: the one that trained the run.
        overrides: of the run's config, such as ``task.decoder=beam``.
        config_dir: a folder with options of your own, for the overrides.
    """
    from toolkit.inference import load as module

    return module.load(run_folder, backend, _listed(overrides), folders=_folders(config_dir))


def _listed(overrides: Sequence[str]) -> Sequence[str]:
    """Return the overrides, unless they are one string, which is a sequence of strings too."""
    if isinstance(overrides, str):
        from toolkit.errors import ConfigError

        raise ConfigError(f"overrides: found {overrides!r}, expected a list: [{overrides!r}]")
    return overrides


def _folders(config_dir: str | Path | None) -> list[Path]:
    return [Path(config_dir)] if config_dir is not None else []
