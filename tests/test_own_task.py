"""A task in a package outside the repository: new column, dataset, model and task, by added files alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "text_to_number"
ALLOW = "allow=[text_to_number]"
# with a constant learning rate, a training that stops early has the first steps of a longer one
SHORT = ["trainer.max_epochs=2", "trainer.validate_every=1", "dataset.below=200", "trainer.show=1", "schedule=constant"]


def toolkit(folder: Path, *words: str) -> str:
    """Run a command in the package's folder, which the toolkit does not know."""
    path = os.pathsep.join([str(folder), str(EXAMPLE.parents[1])])
    command = [sys.executable, "-m", *words]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package elsewhere, with a finished run of each backend, and one that changed the framework half-way."""
    folder = tmp_path_factory.mktemp("elsewhere") / "text_to_number"
    shutil.copytree(EXAMPLE, folder)
    train = ("toolkit.run", "recipe=text_to_number", ALLOW, *SHORT)
    for backend in ("torch", "tf"):
        toolkit(folder, *train, f"backend={backend}", f"run_dir=runs/{backend}", "--config-dir", "conf")
    words = ("trainer.max_steps=2", "backend=torch", "run_dir=runs/changed", "--config-dir", "conf")
    toolkit(folder, *train, *words)
    toolkit(folder, "toolkit.run", "resume=runs/changed", ALLOW, "backend=tf", "trainer.max_steps=null")
    return folder


def results(folder: Path, name: str) -> dict[str, dict[str, float]]:
    return json.loads((folder / "runs" / name / "results.json").read_text())["metrics"]


@pytest.mark.parametrize("name", ["tf", "changed"])
def test_its_twins_train_alike_and_change_the_framework(folder: Path, name: str) -> None:
    torch, other = results(folder, "torch"), results(folder, name)
    assert torch.keys() == {"validation", "test"} and torch["test"].keys() == {"loss", "mae"}
    for split, metrics in torch.items():
        for metric, value in metrics.items():
            assert np.isclose(value, other[split][metric], rtol=1e-3), (split, metric)


def test_it_learns_and_keeps_what_its_column_learned(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "runs/torch/metrics.jsonl").read_text().splitlines()]
    first, *_, last = (row["loss"] for row in rows if row["split"] == "validation")
    assert last < first
    assert json.loads((folder / "runs/torch/learned/number/scale.json").read_text())["mean"] > 0


def test_predict_answers_with_the_framework_that_did_not_train(folder: Path) -> None:
    lines = [
        toolkit(folder, "toolkit", "predict", "runs/torch", ALLOW, f"backend={backend}", "one hundred five", "zero")
        for backend in ("torch", "tf")
    ]
    assert lines[0] == lines[1] and len([float(line) for line in lines[0].split()]) == 2
