"""Text to text, one token after the other (Sutskever et al. 2014): what is learned, how it is decoded and measured.

Token 0 is the boundary: a model sees it before the first token of a translation and is to say it after the last. So a
translation of n tokens has n + 1 targets, ``[y1, ..., yn, 0]``, predicted from ``[0, y1, ..., yn]``; padding is none of
them. The loss of a target under label smoothing (Szegedy et al. 2016, section 7) with a vocabulary of V is

    (1 - eps) * -log p(target) + eps / V * sum over all tokens of -log p
    = logsumexp(logits) - (1 - eps) * logits[target] - eps * mean(logits)

in nats, and the loss of a batch is the mean over all its targets. With gradient accumulation a step has the mean of
its batches' losses: a target in a batch with few of them weighs more than one in a batch with many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.batch import TRANSLATION, Fields
from toolkit.metrics import text as metrics
from toolkit.tasks.spec import Rows, Task

BOUNDARY = 0

Hypothesis = tuple[list[int], float]
# (last tokens of the rows, for each the row of the step before that it goes on from) -> (rows, vocabulary) logarithms
Step = Callable[[np.ndarray, np.ndarray], np.ndarray]


@spec
class Seq2Seq(Task):
    """Translation, and whatever else turns a text into a text.

    Decoding is numpy in both backends, so that equal log-probabilities give equal text. Validations between epochs
    decode greedily, whatever ``decoder`` says.
    """

    domains: ClassVar[tuple[str, ...]] = ("translation",)
    fields: ClassVar[Fields] = TRANSLATION

    label_smoothing: float = option(0.1, "share of the target that is spread over all tokens (eps)", ge=0, lt=1)
    decoder: Literal["greedy", "beam"] = option("beam", "greedy: the likeliest token each time; beam: beam search")
    beam_width: int = option(5, "beam: translations that are followed at the same time", ge=1)
    length_penalty: float = option(
        0.6, "alpha of Wu et al. 2016, equation 14: 0 prefers short translations, more prefers longer ones", ge=0
    )
    max_length_ratio: float = option(1.5, "longest translation, in tokens for each token of the source", ge=0)
    max_length_extra: int = option(10, "tokens by which the longest translation exceeds that", ge=1)
    monitor: Literal["loss", "bleu", "chrf"] = option("bleu", "which figure of the validation says what is best")

    def amounts(self, batch: Any) -> Any:
        """Each row's number of targets, ``(batch,)``."""
        return batch["token_lengths"] + 1

    def longest(self, source_lengths: np.ndarray, positions: int | None = None) -> np.ndarray:
        """Tokens, without the boundary, that a translation of such sources may have.

        Args:
            source_lengths: ``(batch,)`` tokens.
            positions: of the model, which the boundary takes one of; None: it has no bound.
        """
        longest = np.floor(self.max_length_ratio * source_lengths).astype(np.int64) + self.max_length_extra
        return longest if positions is None else np.minimum(longest, positions - 1)

    def decode(
        self,
        stepper: Callable[[int], Step],
        source_lengths: np.ndarray,
        final: bool = True,
        positions: int | None = None,
    ) -> list[Hypothesis]:
        """Translate a batch.

        Args:
            stepper: makes the step function for so many hypotheses of each example.
            source_lengths: ``(batch,)`` tokens.
            final: False decodes greedily.
            positions: see :meth:`longest`.

        Returns:
            for each example the ids, without boundary, and their normalised log-probability.
        """
        longest = self.longest(source_lengths, positions)
        if self.decoder == "greedy" or not final:
            return greedy(stepper(1), longest, self.length_penalty)
        return beam_search(stepper(self.beam_width), longest, self.beam_width, self.length_penalty)

    def evaluate(self, engine: Any, batch: Any, tokenizer: Any, final: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        """Decode a batch: ``(example, row of the predictions)`` for each of its examples."""
        out = engine.eval_step(batch)
        positions = getattr(engine.model.spec, "max_positions", None)
        lengths = np.asarray(batch["source_lengths"])
        decoded = self.decode(lambda width: engine.stepper(batch, width), lengths, final, positions)
        for example, loss, tokens, (ids, score) in zip(
            out["example"], out["loss"], out["tokens"], decoded, strict=True
        ):
            row = {"hypothesis": tokenizer.decode(ids), "score": score, "loss": float(loss), "tokens": int(tokens)}
            yield int(example), row

    def measure(self, rows: Rows) -> dict[str, float]:
        """``loss`` without smoothing, over all targets of the split; ``bleu``, ``bleu_lc`` and ``chrf``, 0 to 100."""
        references, hypotheses = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
        losses, tokens = [row["loss"] for row in rows], [row["tokens"] for row in rows]
        return {
            "loss": float(np.average(losses, weights=tokens)),
            "bleu": metrics.bleu(references, hypotheses),
            "bleu_lc": metrics.bleu_tokenized_lowercased(references, hypotheses),
            "chrf": metrics.chrf(references, hypotheses),
        }

    def signatures(self) -> dict[str, str]:
        """How each measure was taken, in sacrebleu's words."""
        return metrics.signatures()

    def detail(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the predictions file says beside a row: chrF of this sentence alone."""
        return {"chrf": round(metrics.chrf([row["reference"]], [row["hypothesis"]]), 2)}


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
