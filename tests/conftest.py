"""Fixtures that several test files share, and the temporary folder of the whole suite."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.backend import ROOT, Backends
from tests.support.trained import Trained


def pytest_configure(config):
    """Give the suite and all that it starts one temporary folder."""
    config.temporary_is_over = True
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.temporary = tempfile.mkdtemp(prefix="tests-")
        os.environ["TMPDIR"] = tempfile.tempdir = config.temporary


def pytest_unconfigure(config):
    """Remove the folder, unless something failed and its files may say why."""
    if "PYTEST_XDIST_WORKER" not in os.environ and config.temporary_is_over:
        shutil.rmtree(config.temporary, ignore_errors=True)


def pytest_sessionfinish(session, exitstatus):
    session.config.temporary_is_over = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if exitstatus and not config.temporary_is_over:
        terminalreporter.write_line(f"the files of the tests are kept in {config.temporary}")


@pytest.fixture(autouse=True)
def shared_process(monkeypatch):
    """Keep the temporary folder of this process when a test calls a command in it."""
    monkeypatch.setattr("toolkit.training.processes.own_temporary_folder", lambda: None)


@pytest.fixture(scope="session")
def backends(tmp_path_factory):
    """Both frameworks, each imported once; see tests/support/backend.py."""
    with Backends(tmp_path_factory.mktemp("backends")) as started:
        yield started


@pytest.fixture(scope="session")
def trained(backends, tmp_path_factory):
    """Small runs that several tests look at; see tests/support/trained.py."""
    return Trained(backends, tmp_path_factory)


@pytest.fixture
def temporary():
    """An empty folder with a short name, since the sockets of loader workers have their names' lengths limited."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def entry():
    """The module that ``toolkit`` runs."""
    return "toolkit.run"


@pytest.fixture
def toolkit(backends, place, entry):
    """A function that runs the command with the stub, forked from a process that has imported no framework."""

    def toolkit(*arguments, code=0):
        return backends["neutral"].run(entry, *arguments, code=code, timeout=120)

    return toolkit


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in; in every process, a stub stands in the place of ``toolkit.runs.job``."""
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "sitecustomize.py").write_text("from tests.workers import stub_job\n\nstub_job.install()\n")
    monkeypatch.setenv("PYTHONPATH", f"{stub}{os.pathsep}{ROOT}")
    work = tmp_path / "a folder"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


# files that take longest, begun first: with the others' help a worker would else be busy with one of them at the end
LONGEST = (
    "cli/test_run",
    "certify/test_certify",
    "inference/test_predict",
    "sweeps/test_sweeps",
    "twins/test_models",
    "test_discovery",
    "cli/test_cli",
    "data/test_stream",
    "training/test_devices",
    "faults/test_workers",
    "runs/test_resume",
    "faults/test_disk",
    "optimizers/test_optimizers",
    "training/test_tpu",
    "faults/test_kills",
    "training/test_ema",
    "config/test_compose",
    "test_packaging",
    "data/sources/test_hub_server",
    "twins/test_answers",
)


def pytest_collection_modifyitems(items):
    """Put the longest files first."""
    order = {f"tests/{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))
