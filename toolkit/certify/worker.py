"""One training of a certificate, in a process of its own: ``python -m toolkit.certify.worker FOLDER NAME``.

It runs the toolkit's own loop and engine over batches that the parent has made, and records what they hold after every
step. Nothing is certified that does not train.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.certify.stream import AHEAD, Arrays, Writer
from toolkit.config import build, schema
from toolkit.data import pipeline
from toolkit.data.batch import Batch, Fields
from toolkit.data.columns.column import columns_of
from toolkit.data.plan import Plan
from toolkit.data.split import Data, Split, batch_fields
from toolkit.runs import checkpoint
from toolkit.training.engine import NonFinite, StepResult
from toolkit.training.progress import Progress, State

NEVER = 10**9  # steps or epochs: no validation and no row of a log falls into a certificate


@dataclass(frozen=True)
class Training:
    """How one of the trainings differs from the others.

    Args:
        backend: of both.
        precision: of the trainer.
        threads: of one operation.
        whole: at which steps weights and moments are recorded, not the loss alone.
        moved: begin from weights that are each moved to a neighbouring number, by a draw of this key; 0: as they are.
            With ``after``: those of the checkpoint.
        after: the training whose checkpoint of half the steps this one goes on from.
    """

    backend: Literal["torch", "tf"]
    precision: Literal["64", "32"]
    threads: int = 1
    whole: Literal["never", "last", "always"] = "never"
    moved: int = 0
    after: str = ""


TRAININGS = {
    "torch64": Training("torch", "64", whole="always"),
    "tf64": Training("tf", "64", whole="always"),
    "torch-tf64": Training("tf", "64", whole="last", after="torch64"),
    "tf-torch64": Training("torch", "64", whole="last", after="tf64"),
    "torch32": Training("torch", "32"),
    "threads": Training("torch", "32", threads=2),
    "moved1": Training("torch", "32", moved=1),
    "moved2": Training("torch", "32", moved=2),
    "tf32": Training("tf", "32"),
    "tf-moved1": Training("tf", "32", moved=1),
    "tf-moved2": Training("tf", "32", moved=2),
    "torch-tf32": Training("tf", "32", after="torch32"),
    "torch-tf-moved": Training("tf", "32", moved=1, after="torch32"),
    "tf-torch32": Training("torch", "32", after="tf32"),
    "tf-torch-moved": Training("torch", "32", moved=1, after="tf32"),
}
RELAYS = {name: training for name, training in TRAININGS.items() if training.after and not training.moved}
DECODING = ("torch32", "tf32")  # those that decode the checkpoint that the first of them leaves


class _Done(Exception):
    """Enough steps."""


@dataclass(frozen=True)
class _Half:
    """In place of a run folder: it keeps the checkpoint of one step."""

    path: Path
    step: int

    def save(self, state: State, at: Progress, keep: int) -> None:
        if at.step == self.step:
            checkpoint.save(self.path, state, at, keep)


def main(argv: Sequence[str]) -> None:
    """Entry point; ``FOLDER`` is the parent's, ``NAME`` one of ``TRAININGS``."""
    folder, name = argv
    build.isolate(TRAININGS[name].backend)
    work(Path(folder), name)


def work(folder: Path, name: str, ahead: int | None = AHEAD, into: str | None = None) -> None:
    """Do one training, in a process that was prepared for its backend.

    Args:
        folder: where the parent left ``job.json``, the plan and the batches.
        name: of ``TRAININGS``.
        ahead: see :class:`toolkit.certify.stream.Writer`.
        into: the recording's name, where it is not ``name``.
    """
    from toolkit.runs import job

    training, told = TRAININGS[name], json.loads((folder / "job.json").read_text("utf-8"))
    run = schema.resolve(told["config"], tuple(told["allow"]))
    half = _Half(folder / f"half-{name}", told["half"])
    followed = half.step and name in {relay.after for relay in RELAYS.values()}
    run = dataclasses.replace(
        run,
        backend=training.backend,
        trainer=dataclasses.replace(
            run.trainer,
            precision=training.precision,
            workers=0,
            validate_every=NEVER,
            checkpoint_every=half.step if followed else NEVER,
            log_every=NEVER,
            log_examples=False,
        ),
    )
    learned = pipeline.load(columns_of(run), Path(told["learned"]) / checkpoint.LEARNED)
    side: Any = build.load_module("toolkit.certify", training.backend)
    side.prepare(training.threads)
    engine = job.load_engine(run, learned)
    at = Progress()
    if training.after:
        begun = checkpoint.choose(folder / f"half-{training.after}", "last", print)
        engine.load(begun.state)
        at = begun.progress
    if training.moved:
        engine.load(moved(engine.state(), training.moved))
    writer = Writer(folder / (into or name), ahead)
    watched = Watched(engine, side, range(at.step, told["steps"]), writer, training.whole)
    _train(run, watched, folder, told, half, at)
    if name in DECODING and told["decoded"]:
        _decode(run, engine, learned.target, folder, name, told)


def _train(run: Any, watched: Watched, folder: Path, told: dict[str, Any], half: Any, at: Progress) -> None:
    from toolkit.training import loop

    lengths = dict(np.load(folder / "plan.npz"))
    plan = Plan(budget=told["budget"], most=told["most"], seed=told["plan_seed"], multiple=told["multiple"], **lengths)
    data = Data(
        Split("train", list(map(str, range(len(plan.lengths)))), [], None),
        plan,
        Packed(folder, "train", batch_fields(columns_of(run), "training")),
    )
    with contextlib.suppress(_Done):
        loop.fit(run, watched, data, data, None, half, at)


def _decode(run: Any, engine: Any, target: Any, folder: Path, name: str, told: dict[str, Any]) -> None:
    """Decode the test batches from the weights with which the first of ``DECODING`` ended."""
    from toolkit.training.evaluation import answers

    path = folder / "checkpoints"
    if name == DECODING[0]:
        checkpoint.save(path, engine.state(), Progress(step=told["steps"]), keep=1)
    engine.load(checkpoint.choose(path, "last", print).state)
    batches = [np.array(positions) for positions in told["decoded"]]
    rows = {}
    packed = Packed(folder, "test", batch_fields(columns_of(run), "evaluation"))
    for batch in engine.batches(packed, batches, 0):
        for example, row in answers(run, engine, batch, target, labelled=True, quick=False):
            rows[example] = {"hypothesis": row["hypothesis"], "score": row["score"]}
    (folder / f"decoded-{name}.json").write_text(json.dumps(rows), "utf-8")


def batch_path(folder: Path, split: str, epoch: int, positions: np.ndarray) -> Path:
    """Where a batch lies. An example is in one batch of an epoch only, so its first one names it."""
    return folder / "batches" / f"{split}-{epoch}-{int(positions[0])}.npz"


@dataclass(frozen=True)
class Packed:
    """A collator that reads the batches that the parent made.

    Args:
        folder, split: see :func:`batch_path`.
        fields: of a batch.
    """

    folder: Path
    split: str
    fields: Fields

    def known(self, positions: np.ndarray) -> Batch:
        """Return what a whole batch is padded by: nothing, for it is whole."""
        return {}

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        with np.load(batch_path(self.folder, self.split, epoch, positions)) as file:
            return {name: file[name] for name in file.files}


class Watched:
    """An engine whose every step is recorded; the loop sees no difference.

    The record of step 0 is what goes into the first update: each intermediate of the first batch, the loss, each
    gradient. The record of a later step is what the engine holds after it. A training that goes on has no step 0.
    """

    def __init__(self, engine: Any, side: Any, steps: range, writer: Writer, whole: str) -> None:
        self.engine, self.side, self.writer, self.whole = engine, side, writer, whole
        self.step, self.steps = steps.start, steps.stop
        self.model: Any = engine.model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def train_step(self, batches: list[Any], *settings: Any) -> StepResult:
        if not self.step:
            self.writer.write(0, self.side.first_step(self.engine, batches, *settings[:2]))
        try:
            loss, norm = self.engine.train_step(batches, *settings)
        except NonFinite:
            self.writer.stop(f"step {self.step + 1}: the loss or its gradient is not finite")
            raise _Done from None
        self.step += 1
        figures = {"learning_rate": self.side.learning_rate(self.engine), "loss": loss, "gradient_norm": norm}
        arrays: Arrays = {name: np.array(value, np.float64) for name, value in figures.items()}
        if self.whole == "always" or (self.whole == "last" and self.step == self.steps):
            arrays |= held(self.engine.state(), self.side.trained(self.engine))
        self.writer.write(self.step, arrays)
        if self.step == self.steps:
            raise _Done
        return StepResult(loss, norm)


def moved(state: State, key: int) -> State:
    """Every weight moved to the next larger or smaller number: as little as float32 can tell apart."""
    draw = np.random.Generator(np.random.Philox(key=[key, 0]))
    model = {}
    for name, array in state.model.items():
        towards = np.where(draw.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
        model[name] = np.nextafter(array, towards)
    return dataclasses.replace(state, model=model)


def held(state: State, trained: set[str]) -> Arrays:
    """What an engine holds, in the order of cause and effect.

    Args:
        trained: names of the parameters; what else the model has are running statistics.
    """
    moments = {f"moment/{name}": array for name, array in state.optimizer.items()}
    weights = {f"weight/{name}": array for name, array in state.model.items() if name in trained}
    statistics = {f"statistic/{name}": array for name, array in state.model.items() if name not in trained}
    return moments | weights | statistics | {f"average/{name}": array for name, array in state.ema.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
