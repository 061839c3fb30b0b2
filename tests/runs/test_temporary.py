"""A finished run leaves nothing in the temporary folder."""

import json

import pytest


def test_a_run_with_loader_workers_leaves_nothing_behind(backends, trained, temporary, tmp_path):
    """Runs on several devices are in training/test_devices.py."""
    words = trained.arguments("image_classification", "trainer.workers=2", "backend=torch", f"run_dir={tmp_path}")
    environment = {"TMPDIR": str(temporary), "TOOLKIT_CACHE": str(tmp_path / "cache")}
    done = backends["torch"].run("toolkit.run", *words, env=environment)
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "results.json").read_text())["metrics"]
    assert list(temporary.iterdir()) == []


@pytest.mark.long
def test_without_a_folder_of_its_own_a_run_leaves_the_sockets_of_its_workers(backends, trained, temporary, tmp_path):
    """The control of the test above."""
    words = trained.arguments("image_classification", "trainer.workers=2", "backend=torch", f"run_dir={tmp_path}")
    environment = {"TMPDIR": str(temporary), "TOOLKIT_CACHE": str(tmp_path / "cache")}
    backends["torch"].run("tests.workers.littering", *words, env=environment)
    assert list(temporary.glob("pymp-*"))
