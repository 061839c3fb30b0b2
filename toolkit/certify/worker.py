"""One training of a certificate, in a separate process: ``python -m toolkit.certify.worker FOLDER NAME``.

It runs the loop and the engine that every run uses, over batches that the parent process wrote, and records their state
after every step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolkit.certify.stream import AHEAD, Arrays, Writer
from toolkit.config import build, process, schema
from toolkit.data import pipeline
from toolkit.data.batch import Batch, Fields
from toolkit.data.columns.column import columns_of
from toolkit.data.plan import Plan
from toolkit.data.split import Data, Split, batch_fields
from toolkit.runs import checkpoint
from toolkit.training.engine import Engine, NonFinite, StepResult
from toolkit.training.progress import Progress, State
from toolkit.training.wrapper import EngineWrapper

if TYPE_CHECKING:
    from toolkit.config.schema import Run

NEVER = 10**9  # steps or epochs: a certificate has no validation and writes no log


@dataclass(frozen=True)
class Training:
    """Settings of one of the trainings.

    Args:
        backend: the framework.
        precision: ``trainer.precision``.
        threads: threads of one operation.
        whole: steps at which weights and moments are recorded, not only the loss.
        moved: begin from weights that are each moved to a neighbouring number, by a draw of this key; 0: as they are.
            With ``after``: those of the checkpoint.
        after: the training whose checkpoint after half the steps this one resumes.
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
DECODING = ("torch32", "tf32")  # trainings that decode the final checkpoint of the first of them


class _Done(Exception):
    """The last step of the training is recorded."""


@dataclass(frozen=True)
class _Half:
    """Recorder that keeps only the checkpoint of one step."""

    path: Path
    step: int

    def say(self, text: str = "") -> None:
        pass

    def record(self, step: int, epoch: int, split: str, values: Mapping[str, float]) -> None:
        pass

    def record_examples(self, step: int, epoch: int, ids: list[str]) -> None:
        pass

    def save(self, state: State, progress: Progress, keep: int) -> None:
        if progress.step == self.step:
            checkpoint.save(self.path, state, progress, keep)


def main(argv: Sequence[str]) -> None:
    """Do the training ``NAME`` of ``TRAININGS`` in ``FOLDER``, which the parent prepared."""
    folder, name = argv
    process.prepare(TRAININGS[name].backend)
    work(Path(folder), name)


def work(folder: Path, name: str, ahead: int | None = AHEAD, into: str | None = None) -> None:
    """Do one training, in a process that was prepared for its backend.

    Args:
        folder: has ``job.json``, the plan and the batches, from the parent.
        name: of ``TRAININGS``.
        ahead: see :class:`toolkit.certify.stream.Writer`.
        into: name of the recording; None: ``name``.
    """
    from toolkit.runs import job

    training, settings = TRAININGS[name], json.loads((folder / "job.json").read_text("utf-8"))
    half = _Half(folder / f"half-{name}", settings["half"])
    run = _configure(name, settings)
    learned = pipeline.load(columns_of(run), Path(settings["learned"]) / checkpoint.LEARNED)
    probe = build.load_module("toolkit.certify", training.backend)
    probe.prepare(training.threads)
    engine = job.build_engine(run, learned)
    progress = Progress()
    if training.after:
        earlier = checkpoint.choose(folder / f"half-{training.after}", "last", print)
        engine.load(earlier.state)
        progress = earlier.progress
    if training.moved:
        engine.load(nudge(engine.state(), training.moved))
    writer = Writer(folder / (into or name), ahead)
    watched = Watched(engine, probe, range(progress.step, settings["steps"]), writer, training.whole)
    _train(run, watched, folder, settings, half, progress)
    if name in DECODING and settings["decoded"]:
        _decode(run, engine, learned.target, folder, name, settings)


def _configure(name: str, settings: Mapping[str, Any]) -> Run:
    """Return the specs of a training; it checkpoints half-way if another one resumes it."""
    training, run = TRAININGS[name], schema.resolve(settings["config"], tuple(settings["allow"]))
    resumed = settings["half"] and name in {relay.after for relay in RELAYS.values()}
    return dataclasses.replace(
        run,
        backend=training.backend,
        trainer=dataclasses.replace(
            run.trainer,
            precision=training.precision,
            workers=0,
            validate_every=NEVER,
            validate_steps=None,
            checkpoint_every=settings["half"] if resumed else NEVER,
            log_every=NEVER,
            log_examples=False,
        ),
    )


def _train(
    run: Run, watched: Watched, folder: Path, settings: Mapping[str, Any], half: _Half, progress: Progress
) -> None:
    """Train over the parent's batches until the last step is recorded."""
    from toolkit.training import loop
    from toolkit.training.session import Session

    lengths = dict(np.load(folder / "plan.npz"))
    plan = Plan(
        budget=settings["budget"],
        most=settings["most"],
        seed=settings["plan_seed"],
        multiple=settings["multiple"],
        **lengths,
    )
    data = Data(
        Split("train", list(map(str, range(len(plan.lengths)))), [], None),
        plan,
        Packed(folder, "train", batch_fields(columns_of(run), "training")),
    )
    with contextlib.suppress(_Done):
        loop.fit(Session(run, watched, data, data, None, half, progress))


def _decode(run: Run, engine: Engine, target: Any, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
    """Decode the test batches with the final weights of the first of ``DECODING``."""
    from toolkit.training.evaluation import answer_batch

    path = folder / "checkpoints"
    if name == DECODING[0]:
        checkpoint.save(path, engine.state(), Progress(step=settings["steps"]), keep=1)
    engine.load(checkpoint.choose(path, "last", print).state)
    batches = [np.array(positions) for positions in settings["decoded"]]
    rows = {}
    packed = Packed(folder, "test", batch_fields(columns_of(run), "evaluation"))
    for batch in engine.batches(packed, batches, 0):
        for example, row in answer_batch(run, engine, batch, target, labelled=True, quick=False):
            rows[example] = {"hypothesis": row["hypothesis"], "score": row["score"]}
    (folder / f"decoded-{name}.json").write_text(json.dumps(rows), "utf-8")


def batch_path(folder: Path, split: str, epoch: int, positions: np.ndarray) -> Path:
    """Return the file of a batch, named after its first example: an example is in one batch of an epoch."""
    return folder / "batches" / f"{split}-{epoch}-{int(positions[0])}.npz"


@dataclass(frozen=True)
class Packed:
    """Collator that reads the batches that the parent wrote.

    Args:
        folder, split: see :func:`batch_path`.
        fields: fields of a batch.
    """

    folder: Path
    split: str
    fields: Fields

    def measure(self, positions: np.ndarray) -> Batch:
        """Return the fields known before loading: none, because the stored batches are already padded."""
        return {}

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        with np.load(batch_path(self.folder, self.split, epoch, positions)) as file:
            return {name: file[name] for name in file.files}


class Watched(EngineWrapper):
    """Engine that records every step of the loop.

    The record of step 0 has the inputs of the first update: each intermediate of the first batch, the loss, each
    gradient. The record of a later step has the engine's state after it. A resumed training has no step 0.

    Args:
        engine: trains.
        probe: ``toolkit.certify.torch`` or ``.tf``.
        steps: from the steps already taken to the last one.
        writer: of the recording.
        whole: see :class:`Training`.
    """

    def __init__(self, engine: Engine, probe: ModuleType, steps: range, writer: Writer, whole: str) -> None:
        super().__init__(engine)
        self.probe, self.writer, self.whole = probe, writer, whole
        self.step, self.steps = steps.start, steps.stop

    def train_step(self, batches: list[Any], lr: float, batches_done: int, scale: float = 1.0) -> StepResult:
        if not self.step:
            self.writer.write(0, self.probe.first_step(self.engine, batches, lr, batches_done))
        try:
            loss, norm = self.engine.train_step(batches, lr, batches_done, scale)
        except NonFinite:
            self.writer.stop(f"step {self.step + 1}: the loss or its gradient is not finite")
            raise _Done from None
        self.step += 1
        figures = {"learning_rate": self.probe.learning_rate(self.engine), "loss": loss, "gradient_norm": norm}
        arrays: Arrays = {name: np.array(value, np.float64) for name, value in figures.items()}
        if self.whole == "always" or (self.whole == "last" and self.step == self.steps):
            arrays |= flatten(self.engine.state(), self.probe.trained(self.engine))
        self.writer.write(self.step, arrays)
        if self.step == self.steps:
            raise _Done
        return StepResult(loss, norm)


def nudge(state: State, key: int) -> State:
    """Move every weight to a neighbouring number of its type, up or down at random by ``key``."""
    draw = np.random.Generator(np.random.Philox(key=[key, 0]))
    model = {}
    for name, array in state.model.items():
        towards = np.where(draw.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
        model[name] = np.nextafter(array, towards)
    return dataclasses.replace(state, model=model)


def flatten(state: State, trained: set[str]) -> Arrays:
    """Return the arrays of an engine's state, in the order of cause and effect.

    Args:
        state: of the engine.
        trained: names of the parameters; all other weights of the model are running statistics.
    """
    moments = {f"moment/{name}": array for name, array in state.optimizer.items()}
    weights = {f"weight/{name}": array for name, array in state.model.items() if name in trained}
    statistics = {f"statistic/{name}": array for name, array in state.model.items() if name not in trained}
    return moments | weights | statistics | {f"average/{name}": array for name, array in state.ema.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
