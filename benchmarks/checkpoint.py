"""Measure the cost of checkpoints: of saving, syncs and reading back included, and of resuming.

    python benchmarks/checkpoint.py RECIPE BACKEND [SAVES] [OVERRIDE ...]

Steps and saves of the recipe's model on its data alternate in one process, so that other load on the machine slows
both. The share is the time of a save over that of ``trainer.checkpoint_every`` steps and the save.

Resuming at step k is the part of a start that depends on k: reading the checkpoint, cutting the logs to their length,
the plan of the epoch, and the next batch. It is measured at the recipe's first checkpoint and at one a hundred times
later, with logs of the corresponding length.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from toolkit.config import schema as config
from toolkit.runs import checkpoint, job
from toolkit.runs.folder import RunFolder
from toolkit.training.progress import Progress

STEPS = 8  # between two saves
FAR = 100  # checkpoints before the later resume


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(recipe: str, backend: str, saves: int, overrides: list[str]) -> None:
    temporary = tempfile.TemporaryDirectory(dir=".")  # the disk of the runs, which may differ from that of /tmp
    here = Path(temporary.name)
    run = config.check([f"recipe={recipe}", f"backend={backend}", f"run_dir={here}", *overrides])
    folder = RunFolder(here)
    parts = job.prepare(run, folder)
    engine = job.build_engine(run, parts.learned)
    folder.write_config(config.plain(run), [])
    train, every = parts.data["train"], run.trainer.checkpoint_every
    accumulate = run.trainer.accumulate

    steps: list[float] = []
    saved: list[float] = []
    batches = (b for epoch in count() for b in engine.batches(train.collator, train.plan.epoch(epoch), epoch))

    def step() -> None:
        engine.train_step([next(batches) for _ in range(accumulate)], 1e-5, 0)

    for turn in range(saves + 1):
        taken = [timed(step) for _ in range(STEPS)]
        progress = Progress(step=turn + 1)
        cost = timed(lambda: folder.save(engine.state(), progress, run.trainer.keep))  # noqa: B023
        if turn:  # the first ones include the start-up
            steps, saved = steps + taken, [*saved, cost]

    def log(last: int) -> None:
        for name in ("metrics.jsonl", "examples.jsonl"):
            (here / name).unlink(missing_ok=True)
        again = RunFolder(here)
        lengths = [len(b) for b in train.plan.epoch(0)]
        for number in range(1, last + 1):
            ids = train.split.ids[: lengths[number % len(lengths)] * accumulate]
            again._append("examples.jsonl", json.dumps({"step": number, "epoch": 0, "ids": ids}))
            if number % run.trainer.log_every == 0:
                row = {"step": number, "epoch": 0, "split": "train", "loss": 1.0, "lr": 1e-3, "grad_norm": 1.0}
                again._append("metrics.jsonl", json.dumps(row))
        groups = -(-len(train.plan) // accumulate)
        place = Progress(step=last, epoch=last // groups, batch=last % groups * accumulate)
        again.save(engine.state(), place, 1)
        again.close()

    def resume() -> None:
        again = RunFolder(here)
        newest = checkpoint.choose(here / "checkpoints", "last", print)
        engine.load(newest.state)
        again.rewind(newest.progress)
        planned = train.plan.epoch(newest.progress.epoch)
        next(iter(engine.batches(train.collator, planned[newest.progress.batch :], newest.progress.epoch)))
        again.close()

    folder.close()
    resumes = {}
    for last in (every, FAR * every):
        log(last)
        resumes[last] = round(statistics.median(timed(resume) for _ in range(7)), 3)
    step_seconds, save_seconds = statistics.median(steps), statistics.median(saved)
    size = sum(p.stat().st_size for p in checkpoint.candidates(here / "checkpoints")[0].rglob("*") if p.is_file())
    result = {
        "recipe": recipe,
        "backend": backend,
        "checkpoint_bytes": size,
        "step_seconds": round(step_seconds, 4),
        "save_seconds": round(save_seconds, 4),
        "slowest_save_seconds": round(max(saved), 4),
        "share_percent": round(100 * save_seconds / (save_seconds + every * step_seconds), 3),
        "resume_seconds_by_step": resumes,
        "log_bytes_a_step": round((here / "examples.jsonl").stat().st_size / (FAR * every), 1),
    }
    print(json.dumps(result, indent=1))
    temporary.cleanup()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 9, sys.argv[4:])
