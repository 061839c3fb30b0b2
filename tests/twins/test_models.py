"""Every model there is, in both frameworks: the same weights and the same batch give the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.twins.cases import Case, model_specs, run
from tests.twins.compare import first_difference, float32_limit, float64_limit

Arrays = dict[str, np.ndarray]
ROWS = Case.rows


@pytest.mark.parametrize("model", model_specs())
def test_twins_are_equal(model: str, tmp_path: Path) -> None:
    """One test a model, because the two processes that it starts take longer than what they compute."""
    perturbed = next(name for name in Case("", model).spec().parameters(80, 2) if name.startswith("blocks.1."))
    cases = [
        Case("wide", model),
        Case("narrow", model, dtype="float32"),
        Case("dropout", model, dropout=0.2),
        Case("longer", model, extra=9000),
        Case("padded", model, training=False),
        *(Case(f"alone{row}", model, training=False, rows=(row,)) for row in ROWS),
        Case("perturbed", model, perturbed=("tf", perturbed)),
    ]
    results = run(cases, tmp_path)
    torch, tf = results["torch"], results["tf"]

    assert first_difference(torch["wide"], tf["wide"], float64_limit) is None
    limit = float32_limit(torch["narrow"], torch["wide"])
    assert first_difference(torch["narrow"], tf["narrow"], limit) is None
    assert first_difference(torch["dropout"], tf["dropout"], float64_limit) is None
    assert first_difference(torch["padded"], tf["padded"], float64_limit) is None

    # dropout did something
    assert first_difference(torch["wide"], torch["dropout"], float64_limit)

    for backend in (torch, tf):
        # padding reaches neither the loss, nor a gradient, nor the running statistics
        assert first_difference(_whole_batch(backend["wide"]), _whole_batch(backend["longer"]), float64_limit) is None
        for row in ROWS:
            padded, alone = _own_frames(backend["padded"], row), _own_frames(backend[f"alone{row}"], 0)
            assert first_difference(padded, alone, float64_limit) is None

    # the harness sees a parameter that is 1e-6 off, and where
    found = first_difference(torch["perturbed"], tf["perturbed"], float64_limit)
    assert found is not None and found.startswith("blocks.1"), found


def _whole_batch(arrays: Arrays) -> Arrays:
    return {name: value for name, value in arrays.items() if name.startswith(("loss", "gradient.", "after.", "length"))}


def _own_frames(arrays: Arrays, row: int) -> Arrays:
    """What one utterance got, without the padding behind it."""
    frames = {"features": int((arrays["features"][row] != 0).any(-1).sum())}
    steps = int(arrays["lengths"][row])
    return {
        name: value[row] if value.ndim == 1 else value[row, : frames.get(name, steps)] for name, value in arrays.items()
    }
