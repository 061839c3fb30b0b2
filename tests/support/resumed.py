"""Whole runs on an engine without a framework, and comparisons of their folders."""

import json

import numpy as np

from tests.support import training as stand_ins
from toolkit.runs import checkpoint
from toolkit.training.progress import State

SHORT = [
    "tokenizer.vocab_size=13",
    "trainer.max_steps=7",
    "trainer.checkpoint_every=2",
    "trainer.keep=2",
    "trainer.batch_examples=5",
]


class Engine(stand_ins.Engine):
    """Its weight fills the arrays of the run's model."""

    def __init__(self, run, learned, **plan):
        super().__init__(**plan)
        self.parameters = run.model.parameters(learned.inputs, learned.outputs)
        self.moments = run.optimizer.moments

    def state(self):
        model = {name: np.full(p.shape, self.weight[0]) for name, p in self.parameters.items()}
        trained = {name: p.shape for name, p in self.parameters.items() if p.trainable}
        moments = {f"{m}.{name}": np.zeros(shape) for m in self.moments for name, shape in trained.items()}
        return State(model, moments | {"step": np.array([len(self.seen)]), "exp_avg_sq_scale": np.ones(1)})

    def load_weights(self, state):
        self.weight = np.array([next(iter(state.model.values())).flat[0]])

    load = load_weights


class Task(stand_ins.Task):
    """A task of two texts, with something to leave in the run folder."""

    input = target = "text"

    def unfit(self, run, split, learned):
        return ()

    def detail(self, row):
        return {}

    def files(self, rows):
        return {"note.txt": b"noted"}

    def table(self, rows):
        return ""

    def signatures(self, target):
        return {}


def log(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "examples_per_second")} for row in rows]


def last(folder):
    return checkpoint.load(checkpoint.find(folder / "checkpoints", "last"))


def same(folder, other):
    """Tell whether two runs left the same weights, the same position and the same log."""
    a, b = last(folder), last(other)
    equal = all(np.array_equal(a.state.model[name], b.state.model[name]) for name in a.state.model)
    return equal and a.progress == b.progress and log(folder) == log(other)


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in ("run.log", ".lock")}
