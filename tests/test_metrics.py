"""Error rates and alignment."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.metrics import accuracy, align, cer, error_rate, wer


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
    assert accuracy([], []) == 0


def test_rate_above_one() -> None:
    assert error_rate([["a"]], [["b", "c", "d"]]) == 3


def test_accuracy() -> None:
    assert accuracy(["one", "two", "three four"], ["one", "too", " three  four "]) == pytest.approx(2 / 3)


def test_sides_of_different_length() -> None:
    for measure in (wer, cer, accuracy):
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
