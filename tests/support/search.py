"""Models for tests of a search: functions of all tokens so far, and the step function over one."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

Model = Callable[[int, tuple[int, ...]], np.ndarray]  # (example, tokens so far) -> log-probabilities


def drawn(vocabulary: int, seed: int, steps: float | None = None, scale: float = 2.0) -> Model:
    """A model whose answer depends on all that came before; with ``steps`` it is rounded, so that ties are common."""

    def answer(example: int, prefix: tuple[int, ...]) -> np.ndarray:
        key = zlib.crc32(bytes([example, *prefix]))
        x = np.random.Generator(np.random.Philox(key=[seed, key])).standard_normal(vocabulary) * scale
        x = (x - np.log(np.exp(x).sum())).astype(np.float32)
        return x if steps is None else np.minimum(np.round(x * steps) / steps, 0).astype(np.float32)

    return answer


class Stepper:
    """A step function over a :data:`Model`, as an engine makes one; it checks what it is asked."""

    def __init__(self, model: Model, batch: int, width: int) -> None:
        self.model, self.width = model, width
        self.rows: list[tuple[int, ...]] = [()] * (batch * width)
        self.steps = 0

    def __call__(self, tokens: np.ndarray, parents: np.ndarray) -> np.ndarray:
        assert tokens.dtype == parents.dtype == np.int32 and tokens.shape == parents.shape == (len(self.rows),)
        assert np.array_equal(parents // self.width, np.arange(len(self.rows)) // self.width), "crosses examples"
        if self.steps:
            self.rows = [(*self.rows[p], int(t)) for t, p in zip(tokens, parents, strict=True)]
        else:
            assert not tokens.any(), "a translation begins with the boundary"
        self.steps += 1
        return np.stack([self.model(row // self.width, prefix) for row, prefix in enumerate(self.rows)])


def always(*log_probs: float) -> Model:
    return lambda example, prefix: np.array(log_probs, np.float32)
