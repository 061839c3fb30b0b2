"""Small runs that several tests look at, trained once in a session: the fixture ``trained``.

    folder = trained.run("asr", "tf")                        # of 4 steps, on both backends at the same time
    folder = trained.run("translation", "torch", "trainer.max_steps=200", backends=["torch"])

Whoever asks first trains, in whichever worker of pytest-xdist; the others wait. Nobody may write into the folders.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import made, tiny
from tests.support.backend import BACKENDS, ROOT, Backends
from toolkit.config import schema as config

RECIPES = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))


# kinds of the input and the target of a task -> name in ``made.FOLDERS`` of small data that has them
MADE = {("audio", "text"): "speech", ("text", "text"): "translation", ("image", "label"): "images"}


@functools.cache
def checked(recipe: str) -> config.Run:
    """The run of a recipe."""
    return config.check([f"recipe={recipe}"])


def data_of(recipe: str) -> str:
    """The name in ``made.FOLDERS`` of small data for a recipe."""
    task = checked(recipe).task
    return MADE[task.input, task.target]


class Trained:
    """The runs of a session.

    Args:
        backends: train them.
        factory: gives the folder that the workers of pytest-xdist share.
    """

    def __init__(self, backends: Backends, factory: pytest.TempPathFactory) -> None:
        self._backends, self._factory = backends, factory

    def data(self, domain: str) -> Path:
        """A small dataset with its own splits."""
        return (
            made.once(self._factory, f"data-{domain}", lambda folder: made.FOLDERS[domain][1](folder / "data")) / "data"
        )

    def arguments(self, recipe: str, *overrides: str) -> list[str]:
        """The command line of a small run of a recipe, without backend and folder."""
        name = data_of(recipe)
        fixed = [f"recipe={recipe}", f"dataset={made.FOLDERS[name][0]}", f"dataset.path={self.data(name)}"]
        return [*fixed, *tiny.components(*fixed), *tiny.SHORT, *overrides]

    def run(self, recipe: str, backend: str, *overrides: str, backends: Sequence[str] = BACKENDS) -> Path:
        """The folder of a finished run.

        Args:
            backends: Those that are trained when the first is asked for.
        """
        arguments = self.arguments(recipe, *overrides)
        key = hashlib.sha256("\n".join([*arguments, *backends]).encode()).hexdigest()[:12]

        def train(folder: Path) -> None:
            cache = {"TOOLKIT_CACHE": str(folder / "cache")}
            jobs = {
                name: self._backends[name].start(
                    "toolkit.run", *arguments, f"backend={name}", f"run_dir={folder / name}", env=cache
                )
                for name in backends
            }
            for name, job in jobs.items():
                assert job.wait() == 0, f"{recipe} with {name}:\n{job.stdout[-4000:]}{job.stderr[-4000:]}"

        return made.once(self._factory, f"run-{recipe}-{key}", train) / backend
