"""Error rates, BLEU and chrF, alignment."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from toolkit.metrics.text import (
    BLEU,
    BLEU_LC,
    CER,
    CHRF,
    WER,
    align,
    bleu,
    bleu_tokenized_lowercased,
    cer,
    chrf,
    error_rate,
    signatures,
    tokenization,
    unusable,
    wer,
)
from toolkit.tasks.seq2seq.spec import Seq2Seq


def pairs() -> tuple[list[str], list[str]]:
    rng = np.random.Generator(np.random.Philox(key=1))
    words = ["a", "bee", "sea", "deed", "e", "effect", "gee"]
    draw = [[" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(60)] for _ in range(2)]
    return draw[0], draw[1]


def edits(a, b) -> int:
    """Levenshtein's distance by its definition."""
    table = np.add.outer(np.arange(len(a) + 1), np.arange(len(b) + 1))
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (x != y))
    return int(table[-1, -1])


def test_rates_are_edits_over_length() -> None:
    references, hypotheses = pairs()
    words = [(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True)]
    assert wer(references, hypotheses) == sum(edits(r, h) for r, h in words) / sum(len(r) for r, _ in words)
    found = sum(edits(r, h) for r, h in zip(references, hypotheses, strict=True)) / sum(map(len, references))
    assert cer(references, hypotheses) == found


def test_rates_are_of_the_corpus_not_means_of_lines() -> None:
    assert wer(["a b c d e f g h i", "x"], ["a b c d e f g h i", "y"]) == 0.1
    assert cer(["abc", "d"], ["abc", ""]) == 0.25


def test_what_counts_as_equal() -> None:
    assert wer(["café  au\tlait "], ["cafe\u0301 au lait"]) == cer(["café  au\tlait "], ["cafe\u0301 au lait"]) == 0
    assert wer(["Yes sir"], ["yes sir"]) == 0.5


def test_empty_sides() -> None:
    assert wer(["a b"], [""]) == cer(["a b"], [""]) == 1
    assert wer([""], [""]) == cer([""], [""]) == wer([], []) == 0
    assert wer([""], ["a b"]) == 2 and cer([""], ["ab c"]) == 4
    assert wer(["", "a"], ["b", "a"]) == 1


def test_rate_above_one() -> None:
    assert error_rate([["a"]], [["b", "c", "d"]]) == 3


def test_sides_of_different_length() -> None:
    for measure in (wer, cer):
        with pytest.raises(ValueError):
            measure(["a"], [])


def test_align() -> None:
    assert align("please enter x", "please ender") == [
        ["=", "please", "please"],
        ["S", "enter", "ender"],
        ["D", "x", ""],
    ]
    assert align("", "y z") == [["I", "", "y"], ["I", "", "z"]]
    assert align("y", "") == [["D", "y", ""]]
    assert align("", "") == []


def test_alignment_spells_both_sides_with_the_fewest_edits() -> None:
    for reference, hypothesis in zip(*pairs(), strict=True):
        rows = align(reference, hypothesis)
        assert [a for _, a, _ in rows if a] == reference.split()
        assert [b for _, _, b in rows if b] == hypothesis.split()
        assert sum(kind != "=" for kind, _, _ in rows) == edits(reference.split(), hypothesis.split())
        assert all((kind == "=") == (a == b) for kind, a, b in rows)


def grams(tokens, n) -> Counter:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def bleu_of_tokens(references, hypotheses) -> float:
    """Papineni et al. 2002 on lists of tokens."""
    pairs = list(zip(references, hypotheses, strict=True))
    precisions = [
        sum((grams(r, n) & grams(h, n)).total() for r, h in pairs) / sum(grams(h, n).total() for _, h in pairs)
        for n in range(1, 5)
    ]
    lengths = sum(len(r) for r, _ in pairs), sum(len(h) for _, h in pairs)
    return 100 * min(1.0, np.exp(1 - lengths[0] / lengths[1])) * np.exp(np.mean(np.log(precisions)))


def test_bleu_is_that_of_the_paper_over_the_corpus() -> None:
    references, hypotheses = pairs()
    expected = bleu_of_tokens([r.split() for r in references], [h.split() for h in hypotheses])
    assert 1 < expected < 50
    assert bleu(references, hypotheses) == pytest.approx(expected, rel=1e-9)


def test_the_two_kinds_of_bleu() -> None:
    """One cased, the other not; both split punctuation from words, but for the point in a number."""
    references, hypotheses = ["Well, it costs 1.5 euros (or more)."], ["well, it costs 1.5 euros (or more)."]
    tokens = ["Well", ",", "it", "costs", "1.5", "euros", "(", "or", "more", ")", "."]
    assert bleu(references, hypotheses) == pytest.approx(bleu_of_tokens([tokens], [["well", *tokens[1:]]]))
    assert bleu_tokenized_lowercased(references, hypotheses) == pytest.approx(100)
    spaced = [" ".join(tokens).lower()]  # text that was tokenised and lower-cased before
    assert bleu_tokenized_lowercased(references, spaced) == pytest.approx(100)


def test_chrf_is_that_of_the_paper() -> None:
    """Popović 2015 with beta 2: precision and recall are averaged over the orders that both sides have, here four."""
    precision, recall = np.mean([3 / 4, 2 / 3, 1 / 2, 0]), np.mean([3 / 5, 2 / 4, 1 / 3, 0])
    assert chrf(["abc de"], ["ab cx"]) == pytest.approx(100 * 5 * precision * recall / (4 * precision + recall))
    assert chrf(["Abc"], ["abc"]) < 100 == chrf(["abc d"], ["a bcd"])


@pytest.mark.parametrize("measure", [bleu, bleu_tokenized_lowercased, chrf])
def test_edges_of_translation_scores(measure) -> None:
    assert measure([], []) == 0
    assert measure(["a b c d"], [""]) == 0
    composed, apart = "café  au lait, s'il", "cafe\u0301 au lait, s'il"
    assert measure([composed], [apart]) == measure([apart], [composed]) == pytest.approx(100)
    with pytest.raises(ValueError, match="1 hypotheses for 2 references"):
        measure(["a", "b"], ["a"])


def test_translation_scores_are_shown_and_compared_as_such() -> None:
    scores = BLEU, BLEU_LC, CHRF
    assert [score.name for score in scores] == list(signatures())
    for score in scores:
        assert score.format(38.456) == "38.46" and score.improves(2.0, 1.0) and not score.improves(1.0, 2.0)
    for rate in (WER, CER):
        assert rate.format(0.38456) == "38.46 %" and rate.improves(1.0, 2.0) and not rate.improves(2.0, 1.0)


@pytest.mark.parametrize(
    "language, text, signature",
    [
        ("zh", "今天天气很好。我们去公园散步吧。", "tok:zh"),
        ("zh_Hans", "今天天气很好。我们去公园散步吧。", "tok:zh"),
        ("ja", "今日は天気がいいです。", "tok:char"),  # MeCab is not installed
        ("th", "วันนี้อากาศดีมาก", "tok:char"),
        ("de", "Heute ist das Wetter schön.", "tok:13a"),
        ("", "Heute ist das Wetter schön.", "tok:13a"),
    ],
)
def test_equal_texts_have_a_bleu_of_100_in_every_language(language: str, text: str, signature: str) -> None:
    tokenize = tokenization(language)
    assert bleu([text], [text], tokenize) == pytest.approx(100)
    assert bleu([text], [text[: len(text) // 2]], tokenize) < 60
    assert signature in signatures(tokenize)["bleu"] and signature in signatures(tokenize)["bleu_lc"]


def test_mecab_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert (tokenization("ja"), tokenization("ko-KR")) == ("ja-mecab", "ko-mecab")


def test_an_unknown_tokenisation_is_refused() -> None:
    assert [field for field, _ in Seq2Seq(bleu_tokenize="mteval").check()] == ["bleu_tokenize"]
    assert "pip install 'sacrebleu[ja]'" in unusable("ja-mecab") and unusable("flores200") == ""
