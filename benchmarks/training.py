"""Measure training throughput: the neutral loop, a bare hand-written loop and the stock loop, interleaved.

    python benchmarks/training.py RECIPE BACKEND [ROUNDS] [OVERRIDE ...]

Every round trains two epochs of the recipe's data, or of as many of its batches as take about five seconds per epoch,
in three ways in turn, on the same model in one process:

- bare: batches prepared beforehand, a loop of a dozen lines, no log, no progress bar, no checkpoint;
- loop: ``toolkit.training.loop.fit`` end to end with its loader, log, progress bar, one validation and one checkpoint;
- stock: Lightning ``Trainer`` or Keras ``fit`` on the same data, its second and third epoch (the first includes its
  start-up), with the same validation and checkpoint at the end.

The figures are examples per second, and the medians over the rounds of the ratios within a round.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config import build
from toolkit.config import schema as config
from toolkit.config.schema import Run
from toolkit.data.columns.column import columns_of
from toolkit.data.plan import padding_efficiency
from toolkit.data.split import Data, batch_fields, batched
from toolkit.runs import job
from toolkit.runs.folder import RunFolder
from toolkit.training import loop
from toolkit.training.progress import Progress
from toolkit.training.session import Session
from toolkit.training.stock import session as stock_loop
from toolkit.training.stock.session import StockSession

EPOCHS = 2  # in a round
SECONDS = 5.0  # approximate duration of an epoch, if the data is larger


def bare_torch(engine: Any, run: Run, batches: list[Any]) -> Callable[[], None]:
    import torch

    task, model = engine.task, engine.model
    optimizer = build.build(run.optimizer, "torch", list(model.named_parameters()))
    ready = [{k: torch.from_numpy(v) for k, v in batch.items()} for batch in batches]

    def train() -> None:
        task.train()
        for batch in ready:
            loss = task.loss(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), run.trainer.clip_norm or float("inf"))
            optimizer.step()
            optimizer.zero_grad()
            float(loss)

    return train


def bare_tf(engine: Any, run: Run, batches: list[Any]) -> Callable[[], None]:
    import tensorflow as tf

    from toolkit.data.loaders.tf import signature
    from toolkit.optimizers.tf import clip

    task, variables = engine.task, engine.model.trainable_variables
    optimizer = build.build(run.optimizer, "tf", engine.slots)
    ready = [{k: tf.constant(v) for k, v in batch.items()} for batch in batches]

    @tf.function(input_signature=[signature(batch_fields(columns_of(run), "training"))])
    def step(batch: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = task.loss(batch)
        gradients, _ = clip(tape.gradient(loss, variables), run.trainer.clip_norm)
        optimizer.apply(gradients, variables)
        return loss

    def train() -> None:
        for batch in ready:
            float(step(batch))

    return train


def shortened(run: Run, engine: Any, parts: job.Parts) -> Data:
    """Return as many of the plan's batches as can be trained on in ``SECONDS``, as a split."""
    train = parts.data["train"]
    planned = train.plan.epoch(0)
    if len(planned) < 8:
        return train
    loader = engine.batches(train.collator, planned[:6], 0)
    times = [time.perf_counter()]
    for batch in loader:
        engine.train_step([batch], 1e-5, 0)
        times.append(time.perf_counter())
    step = (times[-1] - times[2]) / (len(times) - 3)  # the first two include their start-up
    if step * len(planned) <= 1.5 * SECONDS:
        return train
    kept = np.sort(np.concatenate(planned[: max(8, int(SECONDS / step))]))
    return batched(run, columns_of(run), train.split.select(kept.tolist()), parts.learned, True)


class Timed(StockSession):
    """Stock loop that measures the time of all epochs but the first."""

    def batch_begin(self) -> None:
        if self.progress.epoch == 1 and self.progress.batch == 0:
            self.began = time.perf_counter()
        super().batch_begin()

    def epoch_end(self) -> bool:
        finished = super().epoch_end()
        self.ended = time.perf_counter()
        return finished


def main(recipe: str, backend: str, rounds: int, overrides: list[str]) -> None:
    temporary = tempfile.TemporaryDirectory()
    here = Path(temporary.name)
    run = config.check([f"recipe={recipe}", f"backend={backend}", f"run_dir={here}", *overrides])
    parts = job.prepare(run, RunFolder(here))
    engine = job.build_engine(run, parts.learned)
    train, valid = shortened(run, engine, parts), parts.data["validation"]
    few = valid.split.select([0])
    small = Data(few, dataclasses.replace(valid.plan, lengths=valid.plan.lengths[:1]), valid.collator)
    quiet = dataclasses.replace(run.trainer, show=0, validate_every=10**6)
    neutral_run = dataclasses.replace(run, trainer=dataclasses.replace(quiet, max_epochs=EPOCHS))
    stock_run = dataclasses.replace(run, trainer=dataclasses.replace(quiet, max_epochs=1 + EPOCHS))

    batches = [train.collator(b, epoch) for epoch in range(EPOCHS) for b in train.plan.epoch(epoch)]
    bare = {"torch": bare_torch, "tf": bare_tf}[backend](engine, run, batches)

    def timed(work: Callable[[], Any]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def neutral() -> None:
        target, recorder = parts.learned.target, RunFolder(here / "loop")
        loop.fit(Session(neutral_run, engine, train, small, target, recorder, Progress()))

    def stock() -> float:
        session = Timed(stock_run, engine, train, small, parts.learned.target, RunFolder(here / "stock"), Progress())
        stock_loop.fit(session)
        return session.ended - session.began

    bare(), neutral()  # trace graphs and fill caches before anything is timed
    seconds: dict[str, list[float]] = {"bare": [], "loop": [], "stock": []}
    for _ in range(rounds):
        seconds["bare"].append(timed(bare))
        seconds["loop"].append(timed(neutral))
        seconds["stock"].append(stock())
    ratios = {
        f"loop/{other}": statistics.median(o / m for o, m in zip(seconds[other], seconds["loop"], strict=True))
        for other in ("bare", "stock")
    }
    result = {
        "recipe": recipe,
        "backend": backend,
        "examples": len(train.split),
        "batches": len(train.plan),
        "padding_efficiency": round(
            float(np.mean([padding_efficiency(train.plan.lengths, train.plan.epoch(e)) for e in range(5)])), 4
        ),
        "examples_per_second": {
            k: round(EPOCHS * len(train.split) / statistics.median(v), 1) for k, v in seconds.items()
        },
        "ratios": {k: round(v, 3) for k, v in ratios.items()},
        "seconds": {k: [round(s, 2) for s in v] for k, v in seconds.items()},
    }
    print(json.dumps(result, indent=1), flush=True)
    temporary.cleanup()
    os._exit(0)  # TensorFlow, whose iterators still exist, would wait for minutes for one of their threads


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3, sys.argv[4:])
