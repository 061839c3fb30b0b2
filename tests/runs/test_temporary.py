"""A finished run leaves nothing in the temporary folder."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def temporary():
    """An empty folder with a short name, since the sockets of loader workers have their names' lengths limited."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "backend, overrides",
    [
        ("torch", ["trainer.workers=2"]),
        ("torch", ["trainer.devices=2"]),
        ("tf", ["trainer.devices=2"]),
    ],
)
def test_a_finished_run_leaves_nothing_behind(backend, overrides, backends, trained, temporary, tmp_path):
    arguments = trained.arguments("image_classification", *overrides, f"backend={backend}", f"run_dir={tmp_path}")
    environment = {"TMPDIR": str(temporary), "TOOLKIT_CACHE": str(tmp_path / "cache")}
    done = backends[backend].run("toolkit.run", *arguments, env=environment)
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "results.json").read_text())["metrics"]
    assert list(temporary.iterdir()) == []


def test_without_a_folder_of_its_own_a_run_leaves_the_sockets_of_its_workers(backends, trained, temporary, tmp_path):
    """The control of the test above."""
    words = trained.arguments("image_classification", "trainer.workers=2", "backend=torch", f"run_dir={tmp_path}")
    environment = {"TMPDIR": str(temporary), "TOOLKIT_CACHE": str(tmp_path / "cache")}
    backends["torch"].run("tests.workers.littering", *words, env=environment)
    assert list(temporary.glob("pymp-*"))
