"""Trainings in float16 with one backend: ``python -m tests.workers.half FOLDER OTHER OVERRIDE...``.

Three steps in either precision, a step that overflows, a whole run whose first scale is too large, its second half
again, and the second half of the other backend's run (from the checkpoint ``OTHER``; empty: none). Leaves
``found.npz`` in ``FOLDER``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config import process
from toolkit.config import schema as config

STEP_SCALE, TOO_LARGE = 2.0**7, 2.0**60


class Trainings:
    """The trainings of one backend, and what they found."""

    def __init__(self, folder: Path, run: config.Run) -> None:
        from toolkit.runs import job
        from toolkit.runs.folder import RunFolder

        self.folder, self.given = folder, run
        self.parts = job.prepare(run, RunFolder(folder / "prepared"))
        self.found: dict[str, Any] = {}

    def engine_of(self, precision: Any) -> tuple[config.Run, Any]:
        from toolkit.runs import job

        run = replace(self.given, trainer=replace(self.given.trainer, precision=precision))
        return run, job.build_engine(run, self.parts.learned)

    def steps(self) -> None:
        """Take three steps in either precision, then one that overflows, and one more."""
        from toolkit.training.engine import NonFinite

        train = self.parts.data["train"]
        for precision in ("32", "16"):
            scale = STEP_SCALE if precision == "16" else 1.0
            _, engine = self.engine_of(precision)
            batches = list(engine.batches(train.collator, [*train.plan.epoch(0), *train.plan.epoch(1)][:3], 0))
            self.found[precision] = [engine.train_step([batch], 1e-3, i, scale) for i, batch in enumerate(batches)]
        before = engine.state()
        try:
            engine.train_step(batches[:1], 1e-3, 3, TOO_LARGE)
        except NonFinite:
            after = engine.state()
            same = [np.array_equal(before.optimizer[name], after.optimizer[name]) for name in before.optimizer]
            trained = [name for name in before.model if "running" not in name]
            same += [np.array_equal(before.model[name], after.model[name]) for name in trained]
            self.found["untouched"] = [all(same)]
        self.found["finite again"] = engine.train_step(batches[:1], 1e-3, 3, STEP_SCALE)

    def fit(self, name: str, earlier: Any = None) -> Path:
        """Train to the end, from a checkpoint if one is given; return the checkpoint of half the steps."""
        from toolkit.runs.folder import RunFolder
        from toolkit.training import loop
        from toolkit.training.progress import Progress
        from toolkit.training.session import Session

        run, engine = self.engine_of("16")
        at = Progress(scale=2.0**26)
        if earlier:
            engine.load(earlier.state)
            at = earlier.progress
        goes = RunFolder(self.folder / name)
        data = self.parts.data
        target = self.parts.learned.target
        loop.fit(Session(run, engine, data["train"], data["validation"], target, goes, at))
        state = engine.state()
        arrays = (*state.model.values(), *state.optimizer.values())
        self.found[name] = np.concatenate([array.ravel() for array in arrays])
        self.found[f"{name} at"] = [at.scale, at.step, state.optimizer["step"][0]]
        rows = [json.loads(line) for line in (goes.path / "metrics.jsonl").read_text().splitlines()]
        trained = [row for row in rows if row["split"] == "train"]
        self.found[f"{name} log"] = [(row["step"], row["loss"], row["grad_norm"]) for row in trained]
        goes.close()
        return goes.checkpoints / f"step-{at.step // 2:08d}"


def main(folder: Path, other: str, overrides: list[str]) -> None:
    run = config.check(overrides)
    process.prepare(run.backend)
    from toolkit.runs import checkpoint

    trainings = Trainings(folder, run)
    trainings.steps()
    middle = trainings.fit("whole")
    trainings.fit("again", checkpoint.load(middle))
    if other:
        trainings.fit("other", checkpoint.load(Path(other)))
    np.savez(folder / "found.npz", middle=str(middle), **trainings.found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
