"""Features without augmentation arguments are those of an evaluation batch, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.backend import BACKENDS, ROOT, Backends
from tests.workers.image.cases import CASES


@pytest.mark.parametrize("backend", BACKENDS)
def test_omitted_augmentation_equals_an_evaluation_batch(backend: str, backends: Backends, tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    backends[backend].run("tests.workers.features", backend, path, cwd=ROOT)
    outputs = dict(np.load(path))
    names = [name.removesuffix("/omitted") for name in outputs if name.endswith("/omitted")]
    assert set(names) == {*CASES, "log_mel utterance", "log_mel none"}
    for name in names:
        omitted, evaluation = outputs[f"{name}/omitted"], outputs[f"{name}/evaluation"]
        assert omitted.dtype == evaluation.dtype == np.float32
        assert omitted.shape == evaluation.shape and omitted.tobytes() == evaluation.tobytes(), name
