"""Steps of an optimizer in another package: ``python -m tests.workers.own_optimizer BACKEND OVERRIDE...``.

Prints the weight and the optimizer's state after a step for each of ``GRADIENTS``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config import build, process, schema

GRADIENTS = np.array([[[1.0, -2.0, 0.5]], [[-0.125, 0.25, -8.0]], [[0.0, 4.0, 0.0]]])


def main(backend: str, overrides: list[str]) -> None:
    run = schema.check([*overrides, f"backend={backend}"], [Path("conf")])
    process.prepare(run.backend)
    rates = [run.optimizer.lr * run.schedule.factor(step, len(GRADIENTS)) for step in range(len(GRADIENTS))]
    weight, state = {"torch": _torch, "tf": _tf}[backend](run.optimizer, rates)
    print(json.dumps({"weight": weight.tolist()} | {name: array.tolist() for name, array in state.items()}))


def _torch(spec: Any, rates: list[float]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    import torch

    from toolkit.optimizers.torch import get_state

    model = torch.nn.Linear(3, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = build.build(spec, "torch", list(model.named_parameters()))
    for rate, gradient in zip(rates, GRADIENTS, strict=True):
        model.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return model.weight.detach().numpy(), get_state(optimizer, model)


def _tf(spec: Any, rates: list[float]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    import keras
    import tensorflow as tf

    from toolkit.layers.tf import Slot
    from toolkit.optimizers.tf import get_state

    slot = Slot("weight", keras.Variable(np.zeros([3, 1], "float32")), np.transpose, np.transpose)
    optimizer = build.build(spec, "tf", [slot])
    for rate, gradient in zip(rates, GRADIENTS, strict=True):
        optimizer.learning_rate.assign(rate)
        optimizer.apply([tf.constant(gradient.T, tf.float32)], [slot.variable])
    return slot.variable.numpy().T, get_state(optimizer, [slot])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
