"""Computes the cases of the twin tests in PyTorch: ``python -m tests.twins.torch_worker JOB FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from tests.twins import cases
from toolkit.build import build
from toolkit.features.log_mel.spec import LogMel
from toolkit.layers import torch as layers
from toolkit.tasks.ctc.spec import CTC


def models(folder: Path) -> None:
    """Every case in ``cases.json``."""
    for case in cases.read(folder):
        np.savez(folder / f"{case.name}.torch.npz", **_model(case))


def _model(case: cases.Case) -> dict[str, np.ndarray]:
    features = build(LogMel(), "torch", {})
    model = build(case.spec(), "torch", features.spec.bands, cases.VOCABULARY)
    layers.set_weights(model, case.weights("torch"))
    layers.bind(model, cases.SEED)
    layers.set_step(model, cases.STEP)
    task = build(CTC(), "torch", features, model).to(getattr(torch, case.dtype)).train(case.training)
    batch = {name: torch.from_numpy(array) for name, array in case.batch().items()}
    _, lengths, intermediates = task(batch)
    out = {"lengths": lengths} | intermediates
    if case.training:
        out["loss"] = task.batch_loss(batch, training=True)
        out["loss"].backward()
        out |= {f"gradient.{name}": parameter.grad for name, parameter in model.named_parameters()}
        out |= {f"after.{name}": buffer for name, buffer in model.state_dict().items() if "running" in name}
    else:
        out |= task.evaluate_batch(batch)
    return {name: value.detach().numpy() for name, value in out.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"models": models}[sys.argv[1]](Path(sys.argv[2]))
