"""Parts that the workers of the Transformer and its test share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from toolkit.layers import parameters as weights
from toolkit.models.transformer.spec import Transformer

SMALL = dict(dim=16, heads=2, feed_forward=24, encoder_layers=2, decoder_layers=2, max_positions=9)
SPECS = {
    "post": Transformer(**SMALL),
    "pre": Transformer(**SMALL, norm="pre", activation="gelu", tie_output=False),
    "shared": Transformer(**SMALL, share_embeddings=True),
}
VOCABULARY = 13
LENGTHS = np.array([7, 1, 4], np.int32)
WIDTH, STEPS = 3, 6


def drawn(spec: Transformer) -> dict[str, np.ndarray]:
    """The initial weights, with biases and normalisations that are not zero and one."""
    initial = weights.initial(spec.parameters(VOCABULARY, VOCABULARY), 2)
    random = np.random.Generator(np.random.Philox(key=8))
    return {k: v + (0.3 * random.standard_normal(v.shape)).astype(np.float32) for k, v in initial.items()}


def sources() -> np.ndarray:
    """``(examples, time)`` tokens; what lies beyond the lengths is no zero."""
    return np.random.Generator(np.random.Philox(key=3)).integers(1, VOCABULARY, (len(LENGTHS), 7)).astype(np.int32)


def walk() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Tokens, parents and what each row has by then, the boundary first, of some steps of a search."""
    random = np.random.Generator(np.random.Philox(key=5))
    rows = len(LENGTHS) * WIDTH
    so_far = np.zeros((rows, 0), np.int32)
    for step in range(STEPS):
        tokens = random.integers(1, VOCABULARY, rows).astype(np.int32) * (step > 0)
        parents = (np.arange(rows) // WIDTH * WIDTH + random.integers(0, WIDTH, rows)).astype(np.int32)
        so_far = np.concatenate([so_far[parents], tokens[:, None]], 1)
        yield tokens, parents, so_far
