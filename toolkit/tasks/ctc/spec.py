"""Speech recognition by connectionist temporal classification (Graves et al. 2006).

Token 0 is the blank on every backend. The loss of an utterance is its negative log-likelihood in nats, computed in
float64; an utterance with fewer frames than its transcript needs has loss 0 and gradient 0. The loss of a batch is the
mean over its utterances, so it does not depend on how tokens are counted.
"""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.columns.audio import AudioFeatures
from toolkit.data.columns.column import Flaw, Limit
from toolkit.data.columns.text import LearnedTokenizer, TextValues
from toolkit.decoding.ctc import Hypothesis, beam_search, greedy, needed_frames
from toolkit.metrics import text as metrics
from toolkit.metrics.metric import LOSS, Metric
from toolkit.tasks.spec import Outputs, Row, Rows, Task

if TYPE_CHECKING:
    from toolkit.config.schema import Run
    from toolkit.data.split import Learned, Split


@spec
class CTC(Task):
    """Audio to text.

    Decoding is numpy in both backends, so that equal log-probabilities give equal text.
    """

    input: ClassVar[str] = "audio"
    target: ClassVar[str] = "text"
    output: ClassVar[str] = "frames"
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, metrics.WER, metrics.CER)
    joins: ClassVar[bool] = True

    decoder: Literal["greedy", "beam"] = option("greedy", "greedy: the best path; beam: prefix beam search")
    beam_width: int = option(16, "beam: prefixes kept after each frame", ge=1)
    beam_tokens: int = option(16, "beam: most likely tokens tried in each frame", ge=1)
    monitor: Literal["cer", "wer", "loss"] = option("cer", "metric on validation that selects the best checkpoint")

    def unfit(self, run: Run, split: Split, learned: Learned) -> Iterator[Flaw]:
        """Yield utterances of a wrong number of frames, and those of training with a transcript that is no target.

        CTC needs an output frame for each token, and one more between two equal tokens (section 3). In evaluation, a
        transcript that CTC cannot write, or with characters that the tokenizer lacks, counts as the errors of the
        recogniser that it causes: leaving it out would make the score optimistic.
        """
        features = cast(AudioFeatures, run.features)
        frames = run.model.output_length(features.frames(split.input.lengths)) if len(split) else ()
        for i, count in enumerate(map(int, frames)):
            kind, message = self._bad_frames(count, run.model.longest)
            if not kind and split.target is not None and split.name == "train":
                kind, message = _bad_transcript(split.target.texts[i], split.target.tokens[i], count, learned.target)
            if kind:
                yield Flaw(i, kind, message)

    def _bad_frames(self, count: int, most: int | None) -> tuple[str, str]:
        if count < 1:
            return "too short", "too short for one output frame of the model"
        if most is not None and count > most:
            return "too long for the model", f"{count} output frames, expected at most {most} (model.max_positions)"
        return "", ""

    def limit(self, run: Run) -> Limit | None:
        """Return the most samples whose output frames the model takes."""
        features, longest = cast(AudioFeatures, run.features), run.model.longest
        if longest is None:
            return None

        def too_many(samples: int) -> bool:
            return int(run.model.output_length(features.frames(samples))) > longest

        return Limit(bisect.bisect_left(range(1 << 40), True, key=too_many) - 1, "model.max_positions")

    def join(self, rows: Sequence[Row]) -> Row:
        """Join the texts with spaces, and add the log-probabilities."""
        text = " ".join(row["hypothesis"] for row in rows if row["hypothesis"])
        return {"hypothesis": text, "score": sum(row["score"] for row in rows)}

    def hypotheses(self, log_probs: np.ndarray, lengths: np.ndarray) -> list[Hypothesis]:
        """Turn log-probabilities into token ids.

        Args:
            log_probs: ``(batch, time, vocabulary)`` natural logarithms.
            lengths: ``(batch,)`` frames; later ones are ignored.

        Returns:
            for each utterance its ids, without blanks and repetitions, and their score: the log-probability of the best
            path (greedy) or of all explored paths with these ids (beam).
        """
        if self.decoder == "greedy":
            return greedy(log_probs, lengths)
        return [
            beam_search(frames[:n], self.beam_width, self.beam_tokens)
            for frames, n in zip(log_probs, lengths, strict=True)
        ]

    def decode(self, outputs: Outputs, target: LearnedTokenizer) -> list[Row]:
        """Decode ``log_probs (batch, time, vocabulary)`` and ``lengths (batch,)``."""
        hypotheses = self.hypotheses(outputs["log_probs"], outputs["lengths"])
        return [{"hypothesis": target.decode(ids), "score": score} for ids, score in hypotheses]

    def measure(self, rows: Rows, target: TextValues) -> dict[str, float]:
        """Compute the error rates of a split, as fractions."""
        references, hypotheses = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
        return {"wer": metrics.wer(references, hypotheses), "cer": metrics.cer(references, hypotheses)}

    def detail(self, row: Mapping[str, Any]) -> Row:
        """Return the word alignment, see :func:`toolkit.metrics.text.align`."""
        return {"alignment": metrics.align(row["reference"], row["hypothesis"])}


def _bad_transcript(text: str, ids: np.ndarray, frames: int, tokenizer: LearnedTokenizer) -> tuple[str, str]:
    """Return kind and message of a problem with a transcript; two empty strings if there is none."""
    if lacking := sorted(set(tokenizer.unknown(text))):
        names = ", ".join(f"{c!r} (U+{ord(c[0]):04X} {unicodedata.name(c[0], 'no name')})" for c in lacking)
        return "unknown character", f"the tokenizer, learned from the training split, lacks {names}"
    if frames < (needed := needed_frames(ids.tolist())):
        counts = f"{frames} output frames, CTC needs {needed} ({len(ids)} tokens, {needed - len(ids)} repeats)"
        message = f"{counts} for {text[:60]!r}: is it the right transcript? Tight clips need dataset.silence=0.1"
        return "too short for its transcript", message
    return "", ""
