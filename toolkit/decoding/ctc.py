"""Decoding of connectionist temporal classification (Graves et al. 2006): log-probabilities to token ids.

Token 0 is the blank. Everything is numpy, so equal log-probabilities give equal ids on every backend.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

Hypothesis = tuple[list[int], float]


def needed_frames(ids: Sequence[int]) -> int:
    """Count the frames that these tokens need: one each, and a blank between equal neighbours (section 3)."""
    return len(ids) + sum(a == b for a, b in itertools.pairwise(ids))


def greedy(log_probs: np.ndarray, lengths: np.ndarray) -> list[Hypothesis]:
    """Collapse the best path of each utterance; ties are broken by the lower token."""
    best = log_probs.argmax(-1)
    valid = np.arange(best.shape[1]) < np.asarray(lengths)[:, None]
    changed = np.ones(best.shape, bool)
    changed[:, 1:] = best[:, 1:] != best[:, :-1]
    kept = valid & changed & (best != 0)
    scores = np.where(valid, log_probs.max(-1, initial=-np.inf).astype(np.float64), 0.0).sum(-1)
    return [(path[keep].tolist(), float(score)) for path, keep, score in zip(best, kept, scores, strict=True)]


def beam_search(log_probs: np.ndarray, width: int, tokens: int) -> Hypothesis:
    """Prefix beam search (Graves 2012, "Sequence Transduction", adapted to CTC by Hannun et al. 2014, algorithm 1).

    A prefix sums over all paths that give it, whether it grew by a token or was reached again by repetition. Paths that
    end in a blank are counted separately, because a repeated token starts a new one only after a blank. Scores are
    float64 and ties go to the prefix that was found first, so the result does not depend on the platform's sort.

    Args:
        log_probs: ``(time, vocabulary)`` natural logarithms.
        width: prefixes kept after each frame.
        tokens: most likely tokens tried in each frame.
    """
    frames = log_probs.astype(np.float64)
    order = np.argsort(-frames, axis=-1, kind="stable")[:, :tokens]
    parents: list[tuple[int, int]] = [(-1, -1)]  # for each prefix the one that it extends, and its last token
    children: dict[tuple[int, int], int] = {}
    beam: dict[int, tuple[float, float]] = {0: (0.0, -math.inf)}  # prefix: (ends in blank, ends in its last token)
    for frame, likely in zip(frames, order.tolist(), strict=True):
        grown: dict[int, list[float]] = {}
        for prefix, (blank, token) in beam.items():
            both, last = _add(blank, token), parents[prefix][1]
            for c in likely:
                p = float(frame[c])
                if c == 0:
                    _gather(grown, prefix, 0, both + p)
                    continue
                if c == last:
                    _gather(grown, prefix, 1, token + p)
                child = children.setdefault((prefix, c), len(parents))
                if child == len(parents):
                    parents.append((prefix, c))
                _gather(grown, child, 1, (blank if c == last else both) + p)
        # by score, then by age, which is the index of the prefix
        best = sorted(grown, key=lambda prefix: (-_add(*grown[prefix]), prefix))[:width]
        beam = {prefix: (grown[prefix][0], grown[prefix][1]) for prefix in best}
    winner = next(iter(beam))
    score, ids = _add(*beam[winner]), []
    while winner > 0:
        winner, c = parents[winner]
        ids.append(c)
    return ids[::-1], score


def _gather(scores: dict[int, list[float]], prefix: int, end: int, value: float) -> None:
    entry = scores.setdefault(prefix, [-math.inf, -math.inf])
    entry[end] = _add(entry[end], value)


def _add(a: float, b: float) -> float:
    """Return ``log(exp(a) + exp(b))``."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
