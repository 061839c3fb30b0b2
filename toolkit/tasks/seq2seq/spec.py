"""Sequence-to-sequence translation, one token after the other (Sutskever et al. 2014).

Token 0 is the boundary: a model sees it before the first token of a translation and predicts it after the last. A
translation of n tokens has n + 1 targets, ``[y1, ..., yn, 0]``, predicted from ``[0, y1, ..., yn]``; padding is not a
target. The loss of a target under label smoothing (Szegedy et al. 2016, section 7) with a vocabulary of V is

    (1 - eps) * -log p(target) + eps / V * sum over all tokens of -log p
    = logsumexp(logits) - (1 - eps) * logits[target] - eps * mean(logits)

in nats, and the loss of a batch is the mean over all its targets. With gradient accumulation the loss of a step is the
mean of the losses of its batches: a target weighs more in a batch with few targets than in one with many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.columns.column import Flaw, Limit
from toolkit.data.columns.text import LearnedTokenizer, TextValues, without_tokens
from toolkit.decoding.autoregressive import Search
from toolkit.metrics import text as metrics
from toolkit.metrics.metric import LOSS, Metric
from toolkit.tasks.spec import Outputs, Row, Rows, Task

if TYPE_CHECKING:
    from toolkit.config.schema import Run
    from toolkit.data.split import Learned, Split


@spec
class Seq2Seq(Task):
    """Text to text: translation.

    Decoding is numpy in both backends, so that equal log-probabilities give equal text. Validations between epochs
    decode greedily, whatever ``decoder`` says.
    """

    input: ClassVar[str] = "text"
    target: ClassVar[str] = "text"
    output: ClassVar[str] = "tokens"
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, metrics.BLEU, metrics.BLEU_LC, metrics.CHRF)
    measured: ClassVar[tuple[str, ...]] = ("loss", "tokens")
    autoregressive: ClassVar[bool] = True

    label_smoothing: float = option(0.1, "share of the target that is spread over all tokens (eps)", ge=0, lt=1)
    decoder: Literal["greedy", "beam"] = option("beam", "greedy: the likeliest token each time; beam: beam search")
    beam_width: int = option(5, "beam: hypotheses kept at each step", ge=1)
    length_penalty: float = option(
        0.6, "alpha of Wu et al. 2016, equation 14: 0 prefers short translations, more prefers longer ones", ge=0
    )
    max_length_ratio: float = option(1.5, "longest translation, in tokens for each token of the source", ge=0)
    max_length_extra: int = option(10, "tokens by which the longest translation exceeds that", ge=1)
    bleu_tokenize: str | None = option(
        None, "tokenisation of BLEU by its name in sacrebleu: 13a, zh, ja-mecab, char, ...; null: by target language"
    )
    monitor: Literal["loss", "bleu", "chrf"] = option("bleu", "metric on validation that selects the best checkpoint")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.bleu_tokenize and (message := metrics.unusable(self.bleu_tokenize)):
            yield "bleu_tokenize", message

    def amounts(self, batch: Any) -> Any:
        """Return the number of targets of each row, ``(batch,)``."""
        return batch["token_lengths"] + 1

    def unfit(self, run: Run, split: Split, learned: Learned) -> Iterator[Flaw]:
        """Yield pairs with a side that the model's positions cannot hold, and those of training without a target."""
        if split.name == "train" and split.target is not None:
            yield from without_tokens(split.target)
        if run.model.longest is None:
            return
        most = run.model.longest - 1  # the boundary takes one
        sides: list[TextValues] = [values for values in (split.input, split.target) if values is not None]
        for side in sides:
            assert side.tokens is not None
            for i in np.flatnonzero(side.tokens.lengths > most).tolist():
                message = f"{side.tokens.lengths[i]} tokens, expected at most {most} (model.max_positions - 1)"
                yield Flaw(i, "too long", side.said(message))

    def limit(self, run: Run) -> Limit | None:
        longest = run.model.longest
        return None if longest is None else Limit(longest - 1, "model.max_positions - 1")

    def search(self, run: Run, batch: Any, quick: bool) -> Search:
        """Return beam search, or greedy search if ``decoder`` or ``quick`` asks for it."""
        width = None if quick or self.decoder == "greedy" else self.beam_width
        return Search(width, self.length_penalty, self.longest(np.asarray(batch["source_lengths"]), run.model.longest))

    def longest(self, source_lengths: np.ndarray, positions: int | None = None) -> np.ndarray:
        """Return the most tokens of each translation, without the boundary.

        Args:
            source_lengths: ``(batch,)`` tokens.
            positions: of the model, including one for the boundary; None: unbounded.
        """
        longest = np.floor(self.max_length_ratio * source_lengths).astype(np.int64) + self.max_length_extra
        return longest if positions is None else np.minimum(longest, positions - 1)

    def decode(self, outputs: Outputs, target: LearnedTokenizer) -> list[Row]:
        """Decode ``ids (batch, longest)``, ``lengths (batch,)`` and ``scores (batch,)``."""
        answers = zip(outputs["ids"], outputs["lengths"], outputs["scores"], strict=True)
        return [{"hypothesis": target.decode(ids[:n].tolist()), "score": float(score)} for ids, n, score in answers]

    def measure(self, rows: Rows, target: TextValues) -> dict[str, float]:
        """Compute ``loss`` without smoothing over all targets, and ``bleu``, ``bleu_lc`` and ``chrf``, 0 to 100."""
        tokenize = self._tokenize(target)
        references, hypotheses = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
        losses, tokens = [row["loss"] for row in rows], [row["tokens"] for row in rows]
        return {
            "loss": float(np.average(losses, weights=tokens)),
            "bleu": metrics.bleu(references, hypotheses, tokenize),
            "bleu_lc": metrics.bleu_tokenized_lowercased(references, hypotheses, tokenize),
            "chrf": metrics.chrf(references, hypotheses),
        }

    def signatures(self, target: TextValues) -> dict[str, str]:
        """Return the signatures of sacrebleu."""
        return metrics.signatures(self._tokenize(target))

    def _tokenize(self, target: TextValues) -> str:
        return self.bleu_tokenize or metrics.tokenization(target.language)

    def detail(self, row: Mapping[str, Any]) -> Row:
        """Return the chrF of the sentence."""
        return {"chrf": round(metrics.chrf([row["reference"]], [row["hypothesis"]]), 2)}
