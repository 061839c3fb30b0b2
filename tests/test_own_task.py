"""A task in a package outside the repository: new column, dataset, model and task, by added files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.backend import BACKENDS, Backends

EXAMPLE = Path(__file__).parents[1] / "examples" / "text_to_number"
ALLOW = "allow=[text_to_number]"
# with a constant learning rate, a training that stops early has the first steps of a longer one
SHORT = ["trainer.max_epochs=2", "trainer.validate_every=1", "dataset.below=200", "trainer.show=1", "schedule=constant"]


@pytest.fixture(scope="module")
def folder(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package elsewhere, with a finished run of each backend, and one that changed the framework half-way."""
    folder = tmp_path_factory.mktemp("elsewhere") / "text_to_number"
    shutil.copytree(EXAMPLE, folder)
    train = ("toolkit.run", "recipe=text_to_number", ALLOW, *SHORT, "--config-dir", "conf")
    for backend in BACKENDS:
        backends[backend].run(*train, f"backend={backend}", f"run_dir=runs/{backend}", cwd=folder)
    backends["torch"].run(*train, "trainer.max_steps=2", "backend=torch", "run_dir=runs/changed", cwd=folder)
    words = ("resume=runs/changed", ALLOW, "backend=tf", "trainer.max_steps=null")
    backends["tf"].run("toolkit.run", *words, cwd=folder)
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


def test_predict_answers_with_the_framework_that_did_not_train(folder: Path, backends: Backends) -> None:
    words = ("predict", "runs/torch", ALLOW, "one hundred five", "zero")
    lines = [backends[name].run("toolkit", *words, f"backend={name}", cwd=folder).stdout for name in BACKENDS]
    assert lines[0] == lines[1] and len([float(line) for line in lines[0].split()]) == 2
