"""Decoding one token after the other: greedy search and beam search over the next token's log-probabilities.

Token 0 is the boundary: a model sees it before the first token and says it after the last. Everything is numpy, so
equal log-probabilities give equal ids on every backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

BOUNDARY = 0

Hypothesis = tuple[list[int], float]
# (last tokens of the rows, for each the row of the step before that it continues) -> (rows, vocabulary) logarithms
Step = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Search:
    """How the answers to a batch are searched for.

    Args:
        width: hypotheses of each example that run at the same time; 1: greedy.
        length_penalty: alpha of :func:`penalty`.
        longest: ``(batch,)`` tokens, without the boundary, that answers may have.
    """

    width: int
    length_penalty: float
    longest: np.ndarray

    def run(self, step: Step) -> dict[str, np.ndarray]:
        """Search.

        Args:
            step: for ``width`` hypotheses of each example.

        Returns:
            ``ids (batch, tokens)`` int64 without boundary, padded with 0, their ``lengths (batch,)``, and ``scores
            (batch,)``, normalised log-probabilities.
        """
        if self.width == 1:
            found = greedy(step, self.longest, self.length_penalty)
        else:
            found = beam_search(step, self.longest, self.width, self.length_penalty)
        counts = np.array([len(ids) for ids, _ in found], np.int64)
        ids = np.zeros((len(found), int(counts.max(initial=0))), np.int64)
        for row, (tokens, _) in zip(ids, found, strict=True):
            row[: len(tokens)] = tokens
        return {"ids": ids, "lengths": counts, "scores": np.array([score for _, score in found])}


def penalty(tokens: Any, alpha: float) -> Any:
    """What a log-probability is divided by: ``((5 + n) / 6) ** alpha`` (Wu et al. 2016, equation 14).

    Args:
        tokens: n, the boundary at the end counted, so that the empty translation has 1 and a penalty of 1.
        alpha: 0 divides by 1.
    """
    return ((5.0 + tokens) / 6.0) ** alpha


def greedy(step: Step, longest: np.ndarray, alpha: float) -> list[Hypothesis]:
    """The likeliest token each time, of equal ones the lowest, until that is the boundary.

    Args:
        step: for one hypothesis of each example.
        longest: ``(batch,)``; after so many tokens only the boundary is left.
        alpha: see :func:`penalty`; it changes the score alone.

    Returns:
        for each example the ids, without boundary, and their normalised log-probability.
    """
    batch = len(longest)
    rows = np.arange(batch)
    last = np.full(batch, BOUNDARY)
    ids = np.zeros((batch, int(longest.max(initial=0)) + 1), np.int64)
    scores, lengths, running = np.zeros(batch), np.zeros(batch, np.int64), np.ones(batch, bool)
    for n in range(ids.shape[1]):
        log_probs = step(last.astype(np.int32), rows.astype(np.int32))
        last = np.where(running & (n < longest), log_probs.argmax(-1), BOUNDARY)
        scores[running] += log_probs[rows, last].astype(np.float64)[running]
        ids[:, n] = last
        running &= last != BOUNDARY
        lengths += running
        if not running.any():
            break
    scores /= penalty(lengths + 1, alpha)
    return [(row[:n].tolist(), float(score)) for row, n, score in zip(ids, lengths, scores, strict=True)]


def beam_search(step: Step, longest: np.ndarray, width: int, alpha: float) -> list[Hypothesis]:
    """Beam search with a penalty on length, for a batch at once.

    A running hypothesis is tried with every token. Among all these candidates of an example, ranked by their
    log-probability, the ones that end and stand among the best ``width`` are finished, and the best ``width`` that do
    not end run on; so finished ones take no place in the beam. Finished hypotheses compete by their log-probability
    over :func:`penalty`. An example is done when none that runs can still win: its log-probability can only fall, and
    the penalty at its greatest length is the most that it can be divided by.

    Log-probabilities are added and ranked in float64. Of equal candidates the one from the better hypothesis, then the
    lower token, then the one that finished first is preferred, so the result does not depend on a platform's sort.

    Args:
        step: for ``width`` hypotheses of each example.
        longest: ``(batch,)``; after so many tokens only the boundary is left.
        width: hypotheses that run at the same time.
        alpha: see :func:`penalty`.

    Returns:
        for each example the ids, without boundary, and their normalised log-probability.
    """
    batch = len(longest)
    examples = np.arange(batch)[:, None]
    scores = np.full((batch, width), -np.inf)
    scores[:, 0] = 0.0  # there is one hypothesis at first; the others are impossible
    ids = np.zeros((batch, width, int(longest.max(initial=0)) + 1), np.int64)
    last, parents = np.full((batch, width), BOUNDARY), np.tile(np.arange(width), (batch, 1))
    found: list[Hypothesis] = [([], -np.inf)] * batch
    for n in range(ids.shape[2]):  # tokens so far
        rows = examples * width + parents
        log_probs = step(last.ravel().astype(np.int32), rows.ravel().astype(np.int32))
        ending, tokens, going_on = _candidates(log_probs, width)
        going_on[np.repeat(n >= longest, width)] = -np.inf
        # a row's candidates stand in their order, the boundary before equal ones
        added = np.concatenate([ending[:, None], going_on], 1).reshape(batch, width, -1)
        grown = (scores[:, :, None] + added).reshape(batch, -1)  # float64, as the scores are
        order = np.argsort(-grown, 1, kind="stable")
        parents, columns = np.divmod(order, width + 1)
        ends = columns == 0

        for example, rank in np.argwhere(ends[:, :width]):
            score = grown[example, order[example, rank]] / penalty(n + 1, alpha)
            if score > found[example][1]:
                found[example] = (ids[example, parents[example, rank], :n].tolist(), float(score))

        kept = np.argsort(ends, 1, kind="stable")[:, :width]  # the first that do not end
        parents, columns, order = (np.take_along_axis(a, kept, 1) for a in (parents, columns, order))
        scores = np.take_along_axis(grown, order, 1)
        last = tokens.reshape(batch, width, width)[examples, parents, columns - 1]
        ids = ids[examples, parents]
        ids[:, :, n] = last
        reachable = scores[:, 0] / penalty(longest + 1, alpha)
        if all(best >= most for (_, best), most in zip(found, reachable, strict=True)):
            break
    return found


def _candidates(log_probs: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the rows of a step may go on with.

    Returns:
        of each row the log-probability of ending, the ``(rows, width)`` likeliest other tokens, of equal ones the
        lowest first, and their log-probabilities, in the type of ``log_probs``.
    """
    left = np.array(log_probs)  # what an engine returns may be its own memory
    rows = np.arange(len(left))
    ending = left[:, BOUNDARY].copy()
    left[:, BOUNDARY] = -np.inf
    tokens, found = np.empty((len(left), width), np.int64), np.empty((len(left), width), left.dtype)
    for i in range(width):
        tokens[:, i] = left.argmax(-1)
        found[:, i] = left[rows, tokens[:, i]]
        left[rows, tokens[:, i]] = -np.inf
    return ending, tokens, found
