"""Call a function of a worker module: ``python -m tests.workers.call MODULE FUNCTION GIVEN.npz ANSWER.npz``.

The function takes and returns a dict of named arrays; tensors of either framework count as arrays.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np


def plain(value: Any) -> np.ndarray:
    """An array, of whatever a framework calls one."""
    if hasattr(value, "detach"):
        value = value.detach()
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def main(module: str, function: str, given: str, answer: str) -> None:
    compute = getattr(importlib.import_module(module), function)
    with np.load(given) as arrays:
        answers = compute(dict(arrays))
    np.savez(answer, **{name: plain(value) for name, value in answers.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
