"""LSTM with attention: against the paper's equations in numpy, step by step, and in a search, in both frameworks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.config.spec import problems
from toolkit.layers import parameters as weights
from toolkit.models.lstm_attention.spec import LSTMAttention

SOURCE_VOCABULARY, VOCABULARY = 11, 9
SCALE = 2  # of the weights: so that translations are neither empty nor endless
SMALL = {"embedding_dim": 5, "units": 6}
SPECS: dict[str, dict[str, Any]] = {
    "default": {},
    "dot": {"score": "dot"},
    "feeding": {"input_feeding": True},
    "deep": {"layers": 3},
    "deep feeding": {"layers": 2, "input_feeding": True},
}
SOURCES = [[3, 1, 4, 1, 5, 9], [2], [6, 5, 3]]
PREVIOUS = [[0, 3, 8, 4, 6], [0, 2, 6, 4, 3], [0, 8, 3, 2, 7]]
WIDTH = 3
# rows that each step goes on from, and their tokens; a translation is what a row's line of parents said
WALK = [
    ([0, 1, 2, 3, 4, 5, 6, 7, 8], [0] * 9),
    ([0, 0, 0, 4, 5, 3, 8, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 1]),
    ([2, 2, 1, 3, 4, 4, 6, 8, 6], [5, 6, 7, 8, 1, 2, 3, 4, 5]),
    ([1, 0, 2, 5, 5, 5, 7, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1, 8]),
]

BEGIN = """
import json, sys, numpy as np
from toolkit.layers import parameters as weights
from toolkit.models.lstm_attention.spec import LSTMAttention as Spec
from toolkit.config.build import build
from toolkit.features.tokens.spec import Tokens
from toolkit.tasks.seq2seq.spec import Seq2Seq as Task
given, out = json.loads(sys.argv[1]), {}
source, lengths = np.array(given["source"], np.int32), np.array(given["lengths"], np.int32)
previous = np.array(given["previous"], np.int32)
walk = [[np.array(part, np.int32) for part in step] for step in given["walk"]]
longer = np.pad(source, ((0, 0), (0, 3)))

def drawn(spec):
    return {k: given["scale"] * v for k, v in weights.initial(spec.parameters(*given["sizes"]), 3).items()}
"""
TORCH = (
    BEGIN
    + """
import torch
from toolkit.layers import torch as layers
from toolkit.models.lstm_attention.torch import LSTMAttention
from toolkit.tasks.seq2seq.torch import Seq2Seq
torch.set_num_threads(1)

def tensors(*arrays):
    return [torch.from_numpy(a) for a in arrays]

@torch.no_grad()
def compute(name, model):
    out[name] = model(*tensors(source, lengths, previous))[0].numpy()
    state, found = model.start(*tensors(longer, lengths), given["width"]), []
    for parents, tokens in walk:
        logits, state = model.step(state, *tensors(tokens, parents))
        found.append(logits.numpy())
    out[name + "/walk"] = np.stack(found, 1)

for name, options in given["specs"].items():
    spec = Spec(**options)
    model = LSTMAttention(spec, *given["sizes"]).eval()
    layers.set_weights(model, drawn(spec))
    compute(name + "/float32", model)
    with torch.autocast("cpu", torch.bfloat16):
        compute(name + "/mixed", model)
    compute(name + "/float64", model.double())
    task = Seq2Seq(Task(), build(Tokens(), "torch", {}), model)

    def stepper(width):
        state = [task.start(dict(zip(("source", "source_lengths"), tensors(source, lengths))), width)]
        def step(tokens, parents):
            log_probs, state[0] = task.step(state[0], *tensors(tokens, parents))
            return log_probs.detach().numpy()
        return step

    for final in (False, True):
        decoded = Task(max_length_extra=6, length_penalty=2.0).decode(stepper, lengths, final)
        out[f"{name}/found/{final}"] = np.array([i for ids, _ in decoded for i in [*ids, 0]])
        out[f"{name}/scores/{final}"] = np.array([score for _, score in decoded])
np.savez(sys.argv[2], **out)
"""
)
TF = (
    BEGIN
    + """
import keras, tensorflow as tf
from toolkit.layers import tf as layers
from toolkit.models.lstm_attention.tf import LSTMAttention
from toolkit.tasks.seq2seq.tf import Seq2Seq

def tensors(*arrays):
    return [tf.constant(a) for a in arrays]

def compute(name, model):
    out[name] = model(*tensors(source, lengths, previous))[0].numpy()
    state, found = model.start(*tensors(longer, lengths), given["width"]), []
    for parents, tokens in walk:
        logits, state = model.step(state, *tensors(tokens, parents))
        found.append(logits.numpy())
    out[name + "/walk"] = np.stack(found, 1)

for name, options in given["specs"].items():
    spec = Spec(**options)
    for kind, floatx, policy in (
        ("mixed", "float32", "mixed_bfloat16"), ("float32", "float32", "float32"), ("float64", "float64", "float64")
    ):
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
        model = LSTMAttention(spec, *given["sizes"])
        layers.set_weights(model, drawn(spec))
        compute(f"{name}/{kind}", model)
    task = Seq2Seq(Task(), build(Tokens(), "tf", {}), model)
    go_on = tf.function(task.step, reduce_retracing=True)

    def stepper(width):
        state = [task.start(dict(zip(("source", "source_lengths"), tensors(source, lengths))), width)]
        def step(tokens, parents):
            log_probs, state[0] = go_on(state[0], *tensors(tokens, parents))
            return log_probs.numpy()
        return step

    for final in (False, True):
        decoded = Task(max_length_extra=6, length_penalty=2.0).decode(stepper, lengths, final)
        out[f"{name}/found/{final}"] = np.array([i for ids, _ in decoded for i in [*ids, 0]])
        out[f"{name}/scores/{final}"] = np.array([score for _, score in decoded])
np.savez(sys.argv[2], **out)
"""
)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("lstm_attention")
    given = {
        "source": [ids + [0] * (6 - len(ids)) for ids in SOURCES],
        "lengths": list(map(len, SOURCES)),
        "previous": PREVIOUS,
        "walk": WALK,
        "width": WIDTH,
        "scale": SCALE,
        "sizes": [SOURCE_VOCABULARY, VOCABULARY],
        "specs": {name: SMALL | options for name, options in SPECS.items()},
    }
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    for backend, code in (("torch", TORCH), ("tf", TF)):
        command = [sys.executable, "-c", code, json.dumps(given), str(folder / f"{backend}.npz")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr[-3000:]
    return {backend: dict(np.load(folder / f"{backend}.npz")) for backend in ("torch", "tf")}


class Reference:
    """The model on one source and one translation, token by token in float64, as the spec's equations say."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.spec = LSTMAttention(**SMALL | options)
        drawn = weights.initial(self.spec.parameters(SOURCE_VOCABULARY, VOCABULARY), 3)
        self.w = {name: (SCALE * value).astype(np.float64) for name, value in drawn.items()}

    def logits(self, source: list[int], previous: list[int]) -> np.ndarray:
        """``(time, vocabulary)``"""
        memory = [self.w["source_embedding.weight"][i] for i in source]
        for n in range(self.spec.layers):
            forth = self.over(f"encoder.{n}.forwards", memory)
            back = self.over(f"encoder.{n}.backwards", memory[::-1])[::-1]
            memory = [np.concatenate(pair) for pair in zip(forth, back, strict=True)]
        half = self.spec.units // 2
        ends = np.concatenate([memory[-1][:half], memory[0][half:]])
        states = [
            (np.tanh(self.w[f"bridge.{n}.weight"] @ ends + self.w[f"bridge.{n}.bias"]), np.zeros(self.spec.units))
            for n in range(self.spec.layers)
        ]
        attended, found = np.zeros(self.spec.units), []
        for token in previous:
            x = self.w["target_embedding.weight"][token]
            if self.spec.input_feeding:
                x = np.concatenate([x, attended])
            for n in range(self.spec.layers):
                states[n] = self.cell(f"decoder.{n}", x, *states[n])
                x = states[n][0]
            w = self.w["keys.weight"] if self.spec.score == "general" else np.eye(self.spec.units)
            scores = np.exp([x @ w @ m for m in memory])
            context = sum(share * m for share, m in zip(scores / scores.sum(), memory, strict=True))
            attended = np.tanh(self.w["combine.weight"] @ np.concatenate([context, x]))
            found.append(self.w["head.weight"] @ attended + self.w["head.bias"])
        return np.stack(found)

    def over(self, name: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
        state, found = (np.zeros(self.spec.units // 2),) * 2, []
        for x in inputs:
            state = self.cell(name, x, *state)
            found.append(state[0])
        return found

    def cell(self, name: str, x: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gates = self.w[f"{name}.weight_ih_l0"] @ x + self.w[f"{name}.weight_hh_l0"] @ hidden
        enter, forget, new, leave = np.split(gates + self.w[f"{name}.bias_ih_l0"], 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
        return sigmoid(leave) * np.tanh(cell), cell


def far(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def said(steps: int) -> list[list[int]]:
    """What each row of the walk has said by then, the boundary first."""
    rows: list[list[int]] = [[]] * len(WALK[0][0])
    for parents, tokens in WALK[:steps]:
        rows = [[*rows[p], t] for p, t in zip(parents, tokens, strict=True)]
    return rows


EVERY = pytest.mark.parametrize("name", SPECS)
BOTH = pytest.mark.parametrize("backend", ["torch", "tf"])
# mixed precision leaves this model alone
KINDS = pytest.mark.parametrize("kind, near", [("float64", 1e-12), ("float32", 2e-6), ("mixed", 2e-6)])


@EVERY
@BOTH
@KINDS
def test_logits_are_those_of_the_equations(name: str, backend: str, kind: str, near: float, twins: Any) -> None:
    reference = Reference(SPECS[name])
    for found, source, previous in zip(twins[backend][f"{name}/{kind}"], SOURCES, PREVIOUS, strict=True):
        assert far(found, reference.logits(source, previous)) < near


@EVERY
@BOTH
@KINDS
def test_steps_give_what_the_whole_gives(name: str, backend: str, kind: str, near: float, twins: Any) -> None:
    """Rows that change their places; the sources have more padding than before."""
    reference, found = Reference(SPECS[name]), twins[backend][f"{name}/{kind}/walk"]
    assert found.dtype == ("float64" if kind == "float64" else "float32")
    for step in range(len(WALK)):
        for row, tokens in enumerate(said(step + 1)):
            expected = reference.logits(SOURCES[row // WIDTH], tokens)[-1]
            assert far(found[row, step], expected) < near


@EVERY
@pytest.mark.parametrize("final", [False, True])
def test_twins_find_the_same_translations(name: str, final: bool, twins: Any) -> None:
    torch, tf = twins["torch"], twins["tf"]
    assert np.array_equal(torch[f"{name}/found/{final}"], tf[f"{name}/found/{final}"])
    assert np.allclose(torch[f"{name}/scores/{final}"], tf[f"{name}/scores/{final}"], rtol=1e-6)


def test_what_is_found_is_neither_nothing_nor_always_the_same(twins: Any) -> None:
    for name in SPECS:
        greedy, beam = (twins["torch"][f"{name}/found/{final}"] for final in (False, True))
        assert greedy.any() and not np.array_equal(greedy, beam), name


def test_units_are_halved() -> None:
    assert dict(problems(LSTMAttention(units=7)))["units"].startswith("found 7, expected an even number")
    assert not list(problems(LSTMAttention(units=8)))
