"""Fixtures of runs that are resumed, on an engine without a framework."""

import shutil
from dataclasses import replace

import pytest

from tests.support import tiny
from tests.support.made import pair_folder
from tests.support.resumed import SHORT, Engine, Task
from toolkit.config import schema as config
from toolkit.runs import job


@pytest.fixture(scope="session")
def arguments(tmp_path_factory):
    """The command line of a small translation."""
    data = pair_folder(tmp_path_factory.mktemp("pairs") / "data")
    fixed = ["recipe=translation", "dataset=parallel_text", f"dataset.path={data}"]
    return [*fixed, *tiny.components(*fixed), *tiny.SHORT, *SHORT]


@pytest.fixture
def train(arguments, monkeypatch):
    """A function that does the run of a command line, and returns the engine that did it."""

    def train(folder, *overrides, **plan):
        def build(run, learned, link):
            engines.append(Engine(run, learned, **plan))
            return engines[-1]

        engines = []
        monkeypatch.setattr(job, "build_engine", build)
        run = config.check([*arguments, f"run_dir={folder}", *overrides])
        job.execute(replace(run, task=Task()), config.plain(run), list(overrides))
        return engines[0]

    return train


@pytest.fixture(scope="session")
def whole(arguments, tmp_path_factory):
    """The folder of a run that nothing disturbed; not to be written to."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("whole") / "run"
        train.__wrapped__(arguments, patch)(folder)
    return folder


@pytest.fixture
def earlier(whole, tmp_path):
    """A copy of it that may be changed."""
    return shutil.copytree(whole, tmp_path / "run")
