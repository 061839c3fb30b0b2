"""Decoding one token after the other: greedy search and beam search over the next token's log-probabilities.

Token 0 is the boundary: a model sees it before the first token and predicts it after the last. Everything is numpy, so
equal log-probabilities give equal ids on every backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

BOUNDARY = 0

Hypothesis = tuple[list[int], float]
# (last tokens of the rows, for each row the row of the previous step that it continues) -> (rows, vocabulary)
# log-probabilities
Advance = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Search:
    """Search for the answers to a batch.

    Args:
        width: hypotheses of each example that are extended at the same time; None: greedy search. Beam search of
            width 1 differs: it goes on after a boundary, and chooses among the ended hypotheses by their scores.
        length_penalty: alpha of :func:`penalty`.
        longest: ``(batch,)`` most tokens of an answer, without the boundary.
    """

    width: int | None
    length_penalty: float
    longest: np.ndarray

    @property
    def rows(self) -> int:
        """Hypotheses of each example."""
        return self.width or 1

    def run(self, advance: Advance) -> dict[str, np.ndarray]:
        """Run the search.

        Args:
            advance: advances :attr:`rows` hypotheses of each example.

        Returns:
            ``ids (batch, tokens)`` int64 without boundary, padded with 0, their ``lengths (batch,)``, and ``scores
            (batch,)``, normalised log-probabilities.
        """
        if self.width is None:
            answers = greedy(advance, self.longest, self.length_penalty)
        else:
            answers = beam_search(advance, self.longest, self.width, self.length_penalty)
        counts = np.array([len(ids) for ids, _ in answers], np.int64)
        ids = np.zeros((len(answers), int(counts.max(initial=0))), np.int64)
        for row, (tokens, _) in zip(ids, answers, strict=True):
            row[: len(tokens)] = tokens
        return {"ids": ids, "lengths": counts, "scores": np.array([score for _, score in answers])}


def penalty(tokens: Any, alpha: float) -> Any:
    """Return the divisor of a log-probability: ``((5 + n) / 6) ** alpha`` (Wu et al. 2016, equation 14).

    Args:
        tokens: n, including the boundary at the end: the empty translation has n = 1 and a penalty of 1.
        alpha: 0 gives a penalty of 1.
    """
    return ((5.0 + tokens) / 6.0) ** alpha


def greedy(advance: Advance, longest: np.ndarray, alpha: float) -> list[Hypothesis]:
    """Take the most likely token at each step, until it is the boundary; ties are broken by the lower token.

    Args:
        advance: advances one hypothesis of each example.
        longest: ``(batch,)`` most tokens; after them only the boundary is allowed.
        alpha: see :func:`penalty`; it changes only the score.

    Returns:
        the ids of each example, without boundary, and their normalised log-probability.
    """
    batch = len(longest)
    rows = np.arange(batch)
    last = np.full(batch, BOUNDARY)
    ids = np.zeros((batch, int(longest.max(initial=0)) + 1), np.int64)
    scores, lengths, running = np.zeros(batch), np.zeros(batch, np.int64), np.ones(batch, bool)
    for n in range(ids.shape[1]):
        log_probs = advance(last.astype(np.int32), rows.astype(np.int32))
        last = np.where(running & (n < longest), log_probs.argmax(-1), BOUNDARY)
        scores[running] += log_probs[rows, last].astype(np.float64)[running]
        ids[:, n] = last
        running &= last != BOUNDARY
        lengths += running
        if not running.any():
            break
    scores /= penalty(lengths + 1, alpha)
    return [(row[:n].tolist(), float(score)) for row, n, score in zip(ids, lengths, scores, strict=True)]


def beam_search(advance: Advance, longest: np.ndarray, width: int, alpha: float) -> list[Hypothesis]:
    """Beam search with a length penalty, for a whole batch.

    Each step extends every running hypothesis by every token and ranks these candidates of an example by their
    log-probability. Candidates that end and are among the best ``width`` are finished; the best ``width`` that do not
    end keep running, so finished ones take no place in the beam. Finished hypotheses compete by their log-probability
    divided by :func:`penalty`. An example is done when no running hypothesis can still win: its log-probability can
    only decrease, and the penalty at its greatest length is the largest divisor.

    Log-probabilities are summed and ranked in float64. Ties are broken by the better hypothesis, then the lower token,
    then the one that finished first, so the result does not depend on a platform's sort.

    Args:
        advance: advances ``width`` hypotheses of each example.
        longest: ``(batch,)`` most tokens; after them only the boundary is allowed.
        width: hypotheses that run at the same time.
        alpha: see :func:`penalty`.

    Returns:
        the ids of each example, without boundary, and their normalised log-probability.
    """
    batch = len(longest)
    examples = np.arange(batch)[:, None]
    scores = np.full((batch, width), -np.inf)
    scores[:, 0] = 0.0  # the search starts with one hypothesis; the others are impossible
    ids = np.zeros((batch, width, int(longest.max(initial=0)) + 1), np.int64)
    last, parents = np.full((batch, width), BOUNDARY), np.tile(np.arange(width), (batch, 1))
    finished: list[Hypothesis] = [([], -np.inf)] * batch
    for n in range(ids.shape[2]):  # tokens so far
        rows = examples * width + parents
        log_probs = advance(last.ravel().astype(np.int32), rows.ravel().astype(np.int32))
        ending, tokens, continuing = _candidates(log_probs, width)
        continuing[np.repeat(n >= longest, width)] = -np.inf
        # the candidates of a row are in order, the boundary before equal ones
        added = np.concatenate([ending[:, None], continuing], 1).reshape(batch, width, -1)
        grown = (scores[:, :, None] + added).reshape(batch, -1)  # float64, as the scores are
        order = np.argsort(-grown, 1, kind="stable")
        parents, columns = np.divmod(order, width + 1)
        ends = columns == 0

        for example, rank in np.argwhere(ends[:, :width]):
            score = grown[example, order[example, rank]] / penalty(n + 1, alpha)
            if score > finished[example][1]:
                finished[example] = (ids[example, parents[example, rank], :n].tolist(), float(score))

        kept = np.argsort(ends, 1, kind="stable")[:, :width]  # the first that do not end
        parents, columns, order = (np.take_along_axis(a, kept, 1) for a in (parents, columns, order))
        scores = np.take_along_axis(grown, order, 1)
        last = tokens.reshape(batch, width, width)[examples, parents, columns - 1]
        ids = ids[examples, parents]
        ids[:, :, n] = last
        reachable = scores[:, 0] / penalty(longest + 1, alpha)
        if all(best >= most for (_, best), most in zip(finished, reachable, strict=True)):
            break
    return finished


def _candidates(log_probs: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the candidates to continue each row.

    Returns:
        the ``(rows,)`` log-probabilities of ending, the ``(rows, width)`` most likely other tokens (the lower first if
        equal), and their log-probabilities, in the type of ``log_probs``.
    """
    left = np.array(log_probs)  # a copy: the array may be the engine's memory
    rows = np.arange(len(left))
    ending = left[:, BOUNDARY].copy()
    left[:, BOUNDARY] = -np.inf
    tokens, values = np.empty((len(left), width), np.int64), np.empty((len(left), width), left.dtype)
    for i in range(width):
        tokens[:, i] = left.argmax(-1)
        values[:, i] = left[rows, tokens[:, i]]
        left[rows, tokens[:, i]] = -np.inf
    return ending, tokens, values
