"""Stand-ins of a training that need no framework: engine, task, data, and a run of the loop with them."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np

from toolkit.data.columns.column import Column
from toolkit.data.plan import Plan
from toolkit.data.split import Data, Split
from toolkit.metrics.metric import Metric
from toolkit.runs.folder import RunFolder
from toolkit.schedules.cosine.spec import Cosine
from toolkit.training import loop
from toolkit.training.engine import NonFinite, StepResult
from toolkit.training.progress import Progress, State
from toolkit.training.session import Session
from toolkit.training.spec import Trainer


class Thing(Column):
    """A column of anything."""

    kind = "thing"


class Task:
    """A task that decodes an example's class."""

    input = target = "thing"
    monitor = "cer"
    measured = ("loss",)
    autoregressive = False

    def amounts(self, batch):
        return np.ones(len(batch["example"]))

    def metric(self, name):
        return Metric(name, "larger" if name == "accuracy" else "smaller")

    def decode(self, outputs, target):
        return [{"hypothesis": target.decode([guess]), "score": 0.0} for guess in outputs["guess"]]

    def measure(self, rows, target):
        return {"cer": float(np.mean([row["reference"] != row["hypothesis"] for row in rows]))}


class Engine:
    """An engine without a framework. Its one weight is a digest of everything that the loop ever gave it."""

    rank, ranks, sharded = 0, 1, False

    def __init__(self, at_step=None, bad_step=None):
        self.weight = np.zeros(1)
        self.seen: list = []
        self.at_step = at_step or {}
        self.bad_step = bad_step

    def batches(self, collator, batches, epoch):
        return iter([{"example": b, "epoch": epoch} for b in batches])

    def train_step(self, batches, lr, batches_done, scale=1.0):
        if len(self.seen) + 1 == self.bad_step:
            raise NonFinite
        self.seen.append(([(b["example"].tolist(), b["epoch"]) for b in batches], lr, batches_done))
        for b in batches:
            self.weight = np.sin(self.weight * 3 + b["example"].sum() + lr * 1e3 + batches_done + b["epoch"])
        self.at_step.get(len(self.seen), lambda: None)()
        return StepResult(float(self.weight[0]), 1.0)

    def evaluate(self, batch):
        guess = (batch["example"] + int(1e6 * abs(self.weight[0]))) % 3
        return {"loss": guess * 1.0, "guess": guess}

    def with_averages(self):
        return nullcontext()

    def total(self, values):
        return values

    def state(self):
        return State({"w": self.weight.copy()}, {"step": np.array([len(self.seen)])})

    def load_weights(self, state):
        self.weight = state.model["w"]

    load = load_weights


def data(examples, seed=0):
    """Return a split of examples, without a collator."""
    lengths = np.random.default_rng(seed).uniform(1, 5, examples)
    ids, classes = [f"u{i}" for i in range(examples)], SimpleNamespace(references=["0"] * examples)
    split = Split("train", ids, ids, input=None, target=classes)
    return Data(split, Plan(lengths, 20.0, 8, seed), None)


def run(**trainer):
    """Return a run with these fields of the trainer."""
    chosen = {"max_epochs": 4, "validate_every": 2, "log_every": 1, "checkpoint_every": 5, "keep": 100} | trainer
    return SimpleNamespace(
        dataset=SimpleNamespace(columns={"input": Thing, "answer": Thing}),
        features=None,
        tokenizer=None,
        trainer=Trainer(**chosen),
        task=Task(),
        optimizer=SimpleNamespace(lr=0.1),
        schedule=Cosine(warmup_steps=3),
    )


TARGET = SimpleNamespace(decode=lambda ids: str(ids[0]))
TRAIN, VALID = data(40), data(9, 1)


def fit(path, engine, at=None, train=TRAIN, **trainer):
    """Train to the end in the run folder ``path``; return the progress."""
    folder = RunFolder(path)
    at = at or Progress()
    try:
        loop.fit(Session(run(**trainer), engine, train, VALID, TARGET, folder, at))
    finally:
        folder.close()
    return at


def rewind(path, at):
    """Drop the rows of the logs after ``at``, as a resumed run does."""
    folder = RunFolder(path)
    folder.rewind(at)
    folder.close()


def log(path):
    """Return the rows of ``metrics.jsonl``, without times."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "examples_per_second")} for row in rows]
