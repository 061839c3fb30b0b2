"""Features without augmentation arguments are those of an evaluation batch, bit by bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.workers.image.cases import CASES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_omitted_augmentation_equals_an_evaluation_batch(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    env = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.workers.features", backend, str(path)]
    worker = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert worker.returncode == 0, worker.stderr[-3000:]
    outputs = dict(np.load(path))
    names = [name.removesuffix("/omitted") for name in outputs if name.endswith("/omitted")]
    assert set(names) == {*CASES, "log_mel utterance", "log_mel none"}
    for name in names:
        omitted, evaluation = outputs[f"{name}/omitted"], outputs[f"{name}/evaluation"]
        assert omitted.dtype == evaluation.dtype == np.float32
        assert omitted.shape == evaluation.shape and omitted.tobytes() == evaluation.tobytes(), name
