"""Parts that the workers of the LSTM with attention and its test share."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from toolkit.layers import parameters as weights
from toolkit.models.lstm_attention.spec import LSTMAttention
from toolkit.tasks.seq2seq.spec import Seq2Seq

SOURCE_VOCABULARY, VOCABULARY = 11, 9
SIZES = (SOURCE_VOCABULARY, VOCABULARY)
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
# parents of the rows of each step, and their tokens; a translation is the tokens along a row's line of parents
WALK = [
    ([0, 1, 2, 3, 4, 5, 6, 7, 8], [0] * 9),
    ([0, 0, 0, 4, 5, 3, 8, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 1]),
    ([2, 2, 1, 3, 4, 4, 6, 8, 6], [5, 6, 7, 8, 1, 2, 3, 4, 5]),
    ([1, 0, 2, 5, 5, 5, 7, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1, 8]),
]

SOURCE = np.array([ids + [0] * (6 - len(ids)) for ids in SOURCES], np.int32)
LENGTHS = np.array([len(ids) for ids in SOURCES], np.int32)
LONGER = np.pad(SOURCE, ((0, 0), (0, 3)))


def spec_of(name: str) -> LSTMAttention:
    return LSTMAttention(**SMALL | SPECS[name])


def drawn(spec: LSTMAttention) -> dict[str, np.ndarray]:
    return {name: SCALE * value for name, value in weights.initial(spec.parameters(*SIZES), 3).items()}


def steps() -> list[tuple[np.ndarray, np.ndarray]]:
    """Parents and tokens of each step of ``WALK``."""
    return [(np.array(parents, np.int32), np.array(tokens, np.int32)) for parents, tokens in WALK]


def searched(stepper: Callable[[int], Any]) -> dict[str, np.ndarray]:
    """Translations, each followed by a zero, and their scores, of a final search and of one between epochs."""
    task, out = Seq2Seq(max_length_extra=6, length_penalty=2.0), {}
    run: Any = SimpleNamespace(model=SimpleNamespace(longest=None))
    for final in (False, True):
        search = task.search(run, {"source_lengths": LENGTHS}, quick=not final)
        found = search.run(stepper(search.rows))
        translations = zip(found["ids"], found["lengths"], strict=True)
        out[f"found/{final}"] = np.array([i for ids, n in translations for i in [*ids[:n], 0]])
        out[f"scores/{final}"] = found["scores"]
    return out
