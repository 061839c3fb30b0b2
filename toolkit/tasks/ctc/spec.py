"""Connectionist temporal classification (Graves et al. 2006): what is learned, how it is decoded and measured.

Token 0 is the blank on every backend. The loss of an utterance is its negative log-likelihood in nats, computed in
float64; an utterance with fewer frames than its transcript needs has loss 0 and gradient 0. The loss of a batch is the
mean over its utterances, so it does not depend on how tokens are counted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.batch import SPEECH, Fields
from toolkit.metrics import text as metrics
from toolkit.tasks.spec import Rows, Task

Hypothesis = tuple[list[int], float]


@spec
class CTC(Task):
    """Speech recognition by CTC.

    Decoding is numpy in both backends, so that equal log-probabilities give equal text.
    """

    domains: ClassVar[tuple[str, ...]] = ("speech",)
    fields: ClassVar[Fields] = SPEECH

    decoder: Literal["greedy", "beam"] = option("greedy", "greedy: the best path; beam: the best transcript found")
    beam_width: int = option(16, "beam: prefixes kept after each frame", ge=1)
    beam_tokens: int = option(16, "beam: most likely tokens tried in each frame", ge=1)
    monitor: Literal["cer", "wer", "loss"] = option("cer", "which figure of the validation says what is best")

    def decode(self, log_probs: np.ndarray, lengths: np.ndarray) -> list[Hypothesis]:
        """Turn log-probabilities into token ids.

        Args:
            log_probs: ``(batch, time, vocabulary)`` natural logarithms.
            lengths: ``(batch,)`` frames; those beyond are not looked at.

        Returns:
            for each utterance its ids, without blanks and repetitions, and their score: the log-probability of the best
            path (greedy) or of all paths found that give these ids (beam).
        """
        if self.decoder == "greedy":
            return greedy(log_probs, lengths)
        return [
            beam_search(frames[:n], self.beam_width, self.beam_tokens)
            for frames, n in zip(log_probs, lengths, strict=True)
        ]

    def needed_frames(self, ids: Sequence[int]) -> int:
        """Fewest frames that can hold these tokens: one each, and a blank between equal neighbours."""
        return len(ids) + sum(a == b for a, b in itertools.pairwise(ids))

    def evaluate(self, engine: Any, batch: Any, tokenizer: Any, final: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        """Decode a batch: ``(example, row of the predictions)`` for each of its utterances."""
        out = engine.eval_step(batch)
        decoded = self.decode(out["log_probs"], out["lengths"])
        for example, loss, (ids, score) in zip(out["example"], out["loss"], decoded, strict=True):
            yield int(example), {"hypothesis": tokenizer.decode(ids), "score": score, "loss": float(loss)}

    def measure(self, rows: Rows) -> dict[str, float]:
        """Error rates of a split, as fractions (``toolkit.metrics.text``)."""
        references, hypotheses = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
        return {"wer": metrics.wer(references, hypotheses), "cer": metrics.cer(references, hypotheses)}

    def detail(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the predictions file says beside a row: how the words differ, see ``toolkit.metrics.text.align``."""
        return {"alignment": metrics.align(row["reference"], row["hypothesis"])}


def greedy(log_probs: np.ndarray, lengths: np.ndarray) -> list[Hypothesis]:
    """The best path of each utterance, collapsed. Of equal tokens the lowest wins."""
    best = log_probs.argmax(-1)
    valid = np.arange(best.shape[1]) < np.asarray(lengths)[:, None]
    changed = np.ones(best.shape, bool)
    changed[:, 1:] = best[:, 1:] != best[:, :-1]
    kept = valid & changed & (best != 0)
    scores = np.where(valid, log_probs.max(-1, initial=-np.inf).astype(np.float64), 0.0).sum(-1)
    return [(path[keep].tolist(), float(score)) for path, keep, score in zip(best, kept, scores, strict=True)]


def beam_search(log_probs: np.ndarray, width: int, tokens: int) -> Hypothesis:
    """Prefix beam search (Graves 2012, "Sequence Transduction", adapted to CTC by Hannun et al. 2014, algorithm 1).

    A prefix gathers all paths that give it, whether it grew by a token or was reached again by repetition; paths that
    end in a blank are counted apart, for only after a blank does a repeated token begin a new one. Scores are float64
    and ties go to the prefix that was found first, so the result does not depend on the platform's sort.

    Args:
        log_probs: ``(time, vocabulary)`` natural logarithms.
        width: prefixes kept after each frame.
        tokens: most likely tokens tried in each frame.
    """
    frames = log_probs.astype(np.float64)
    order = np.argsort(-frames, axis=-1, kind="stable")[:, :tokens]
    parents: list[tuple[int, int]] = [(-1, -1)]  # of a prefix: the one it grew from, and its last token
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
        # by score, then by age: a prefix's number
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
    """log(exp(a) + exp(b))"""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
