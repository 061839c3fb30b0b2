"""Trainings with given gradients, so that only the optimizers are compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from toolkit.optimizers.adamw.spec import AdamW
from toolkit.optimizers.sgd.spec import SGD
from toolkit.schedules.inverse_square_root.spec import InverseSquareRoot

Arrays = dict[str, np.ndarray]

SPECS: dict[str, AdamW | SGD] = {
    "adamw": AdamW(weight_decay=0.1),
    "adamw98": AdamW(lr=3e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0),
    "sgd": SGD(lr=0.01, momentum=0.0, weight_decay=0.01),
    "momentum": SGD(lr=0.01, weight_decay=0.01),
    "nesterov": SGD(lr=0.01, nesterov=True),
}
SHAPES = {"a.weight": (7, 5), "a.bias": (7,), "b.weight": (4, 3, 2), "norm.weight": (11,)}
STEPS = 200
CLIP = 0.5


@dataclass(frozen=True)
class Case:
    """An optimizer in one precision, with or without clipping (0: without)."""

    label: str
    kind: str
    clip: float

    @property
    def name(self) -> str:
        return f"{self.label}/{self.kind}/{self.clip}"

    @property
    def spec(self) -> AdamW | SGD:
        return SPECS[self.label]

    def rate(self, step: int) -> float:
        return self.spec.lr * InverseSquareRoot(20).factor(step, STEPS)


CASES = [Case(*values) for values in itertools.product(SPECS, ("float32", "float64"), (0.0, CLIP))]


def given() -> Arrays:
    """The first weights and the gradient of every step."""
    rng = np.random.Generator(np.random.Philox(key=1))
    arrays = {}
    for name, shape in SHAPES.items():
        arrays[f"weights/{name}"] = (rng.standard_normal(shape) * 0.3).astype(np.float32)
        size = 10.0 ** rng.uniform(-8, 0, shape)  # gradients over eight decades, which shows epsilon
        arrays[f"gradient/{name}"] = (rng.standard_normal((STEPS, *shape)) * size).astype(np.float32)
    arrays["gradient/norm.weight"] = np.abs(arrays["gradient/norm.weight"])  # so that small biases of steps add up
    return arrays


def part(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """The arrays below a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


class Training(Protocol):
    """One framework's training of a case."""

    def step(self, rate: float, gradients: Arrays) -> None: ...
    def weights(self) -> Arrays: ...
    def state(self) -> Arrays: ...
    def load(self, state: Arrays) -> None: ...


def compute(start: Callable[[Case, Arrays], Training], arrays: Arrays) -> Arrays:
    """Train every case: as a whole, or the second half of each training that ``arrays`` has half-way.

    Args:
        start: ``(case, first weights)`` -> a training.

    Returns:
        ``JOB/CASE/given/...``, the optimizer's state before the first step, and ``weights`` and ``state`` after the
        last one. The job is ``whole``, with ``half`` beside it, or ``NAME on`` for every ``NAME/half`` in ``arrays``.
    """
    out: Arrays = {}
    gradients = part(arrays, "gradient/")

    def leave(place: str, training: Training) -> None:
        for kind, values in (("weights", training.weights()), ("state", training.state())):
            out.update({f"{place}/{kind}/{name}": value for name, value in values.items()})

    sources = sorted({name.split("/")[0] for name in arrays if "/half/" in name})
    for source, case in itertools.product(sources or [""], CASES):
        half = f"{source}/half/{case.name}"
        training = start(case, part(arrays, f"{half}/weights/" if source else "weights/"))
        if source:
            training.load(part(arrays, f"{half}/state/"))
        job = f"{source} on" if source else "whole"
        out.update({f"{job}/{case.name}/given/{name}": value for name, value in training.state().items()})
        for step in range(STEPS // 2 if source else 0, STEPS):
            if step == STEPS // 2 and not source:
                leave(f"half/{case.name}", training)
            training.step(case.rate(step), {name: array[step] for name, array in gradients.items()})
        leave(f"{job}/{case.name}", training)
    return out
