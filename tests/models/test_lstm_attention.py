"""LSTM with attention: against the paper's equations in numpy, step by step, and in a search, in both frameworks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.backend import Backends
from tests.workers.lstm_attention.cases import PREVIOUS, SOURCES, SPECS, WALK, WIDTH, drawn, spec_of
from toolkit.config.spec import problems
from toolkit.models.lstm_attention.spec import LSTMAttention


@pytest.fixture(scope="module")
def twins(backends: Backends) -> dict[str, dict[str, np.ndarray]]:
    return backends.compute("lstm_attention", "compute", {})


class Reference:
    """The model on one source and one translation, token by token in float64, as the spec's equations say."""

    def __init__(self, name: str) -> None:
        self.spec = spec_of(name)
        self.w = {name: value.astype(np.float64) for name, value in drawn(self.spec).items()}

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
    """The words of each row of the walk so far, the boundary first."""
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
    reference = Reference(name)
    for found, source, previous in zip(twins[backend][f"{name}/{kind}"], SOURCES, PREVIOUS, strict=True):
        assert far(found, reference.logits(source, previous)) < near


@EVERY
@BOTH
@KINDS
def test_steps_give_what_the_whole_gives(name: str, backend: str, kind: str, near: float, twins: Any) -> None:
    """Rows that change their places; the sources have more padding than before."""
    reference, found = Reference(name), twins[backend][f"{name}/{kind}/walk"]
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
