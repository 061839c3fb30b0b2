"""Metrics of text: word and character error rate, BLEU, chrF, alignment.

Both sides are compared in Unicode NFC, with runs of white space replaced by one space; case and punctuation count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.data.columns.text import clean
from toolkit.metrics.metric import Metric

WER, CER = Metric("wer"), Metric("cer")
BLEU, BLEU_LC = Metric("bleu", "larger", 2), Metric("bleu_lc", "larger", 2)
CHRF = Metric("chrf", "larger", 2)


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the word error rate of a corpus as a fraction; see :func:`error_rate`."""
    return error_rate([clean(r).split() for r in references], [clean(h).split() for h in hypotheses])


def cer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the character error rate of a corpus as a fraction, spaces counted; see :func:`error_rate`."""
    return error_rate([clean(r) for r in references], [clean(h) for h in hypotheses])


def error_rate(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> float:
    """Return all edits (Levenshtein: substitutions, deletions, insertions) over the total length of the references.

    A long utterance weighs more than a short one, and the rate can exceed 1. If every reference is empty, each inserted
    unit counts 1.

    Raises:
        ValueError: the numbers of references and hypotheses differ.
    """
    from rapidfuzz.distance import Levenshtein

    edits = sum(Levenshtein.distance(r, h) for r, h in zip(references, hypotheses, strict=True))
    return edits / max(1, sum(len(r) for r in references))


def bleu(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the BLEU of a corpus (Papineni et al. 2002) by sacrebleu (Post 2018).

    The text is detokenised and cased, and tokenised by 13a.

    Returns:
        0 to 100; 0 for an empty list.

    Raises:
        ValueError: the numbers of references and hypotheses differ.
    """
    return _translation_score("bleu", references, hypotheses)


def bleu_tokenized_lowercased(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the BLEU of lower-cased, tokenised text, as in older papers; not comparable with :func:`bleu`.

    Both sides are lower-cased and tokenised by 13a, and the tokens are scored as they are. Most papers used the
    tokeniser of Moses and ``multi-bleu.perl``, which differs in apostrophes and abbreviations, so their figures are
    close to this one but not equal.

    Returns:
        0 to 100; 0 for an empty list.

    Raises:
        ValueError: the numbers of references and hypotheses differ.
    """
    return _translation_score("bleu_lc", references, hypotheses)


def chrf(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the chrF2 of a corpus (Popović 2015) by sacrebleu.

    It is the F score of character 1- to 6-grams, cased and without spaces.

    Returns:
        0 to 100; 0 for an empty list.

    Raises:
        ValueError: the numbers of references and hypotheses differ.
    """
    return _translation_score("chrf", references, hypotheses)


def signatures() -> dict[str, str]:
    """Return sacrebleu's signature of each translation metric, with its version, to reproduce the number."""
    return {name: str(_sacrebleu(name, references=[[""]]).get_signature()) for name in ("bleu", "bleu_lc", "chrf")}


def _translation_score(name: str, references: Sequence[str], hypotheses: Sequence[str]) -> float:
    if len(references) != len(hypotheses):  # sacrebleu would ignore the rest
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    if not references:
        return 0.0
    expected, actual = [clean(text) for text in references], [clean(text) for text in hypotheses]
    return float(_sacrebleu(name).corpus_score(actual, [expected]).score)


def _sacrebleu(name: str, **options: Any) -> Any:
    from sacrebleu import metrics as scores

    if name == "chrf":
        return scores.CHRF(**options)
    # without force, it warns at every validation about text that looks tokenised
    return scores.BLEU(lowercase=name == "bleu_lc", tokenize="13a", force=True, **options)


def align(reference: str, hypothesis: str) -> list[list[str]]:
    """Return the fewest edits from reference to hypothesis, word by word.

    Returns:
        a list of ``[kind, reference word, hypothesis word]``; the kind is ``=`` (right), ``S`` (substituted),
        ``D`` (deleted, no hypothesis word) or ``I`` (inserted, no reference word).
    """
    from rapidfuzz.distance import Levenshtein

    expected, actual = clean(reference).split(), clean(hypothesis).split()
    rows: list[list[str]] = []
    for op in Levenshtein.opcodes(expected, actual):
        a, b = expected[op.src_start : op.src_end], actual[op.dest_start : op.dest_end]
        match op.tag:
            case "equal":
                rows += [["=", word, other] for word, other in zip(a, b, strict=True)]
            case "replace":
                rows += [["S", word, other] for word, other in zip(a, b, strict=True)]
            case "delete":
                rows += [["D", word, ""] for word in a]
            case "insert":
                rows += [["I", "", word] for word in b]
    return rows
