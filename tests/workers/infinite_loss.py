"""A run whose loss is infinite and its gradient is not: ``python -m tests.workers.infinite_loss GUARD ARGUMENTS``.

``GUARD`` is ``on`` or ``off``; off, the engine takes every loss for finite.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from toolkit.config import process, schema


def switch_guard_off(backend: str) -> None:
    engine = importlib.import_module(f"toolkit.training.{backend}")
    if backend == "torch":
        engine.np.isfinite = lambda x: engine.np.ones(2, bool)
    else:
        engine.tf.debugging.assert_all_finite = lambda x, message: engine.tf.no_op()


def add_infinity(backend: str) -> None:
    """Add a constant, which has no gradient, to the loss of the CTC task."""
    task = importlib.import_module(f"toolkit.tasks.ctc.{backend}").CTC
    right = task.loss

    def wrong(self: Any, batch: Any) -> Any:
        return right(self, batch) + float("inf")

    task.loss = wrong


def main(guard: str, arguments: list[str]) -> None:
    run = schema.check(arguments)
    process.prepare(run.backend)
    from toolkit.runs import job

    if guard == "off":
        switch_guard_off(run.backend)
    add_infinity(run.backend)
    job.execute(run, schema.plain(run), [])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
