"""Greedy and beam search, against enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.support.search import Model, Stepper, always, drawn
from toolkit.decoding.autoregressive import Hypothesis, beam_search, greedy, penalty


def logp(model: Model, example: int, ids: tuple[int, ...]) -> float:
    """Log-probability of a whole translation, its end included."""
    return float(sum(np.float64(model(example, ids[:n])[t]) for n, t in enumerate((*ids, 0))))


def enumerate_all(model: Model, example: int, vocabulary: int, longest: int, alpha: float) -> Hypothesis:
    every = (ids for n in range(longest + 1) for ids in itertools.product(range(1, vocabulary), repeat=n))
    scored = [(logp(model, example, ids) / ((5 + len(ids) + 1) / 6) ** alpha, list(ids)) for ids in every]
    score, ids = max(scored, key=lambda entry: entry[0])
    return ids, score


def plain_beam(model: Model, example: int, longest: int, width: int, alpha: float) -> Hypothesis:
    """Beam search word for word: one example, sorted lists, to the bitter end."""
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    best: Hypothesis = ([], -np.inf)
    for n in range(longest + 1):
        candidates = []
        for place, (score, ids) in enumerate(running):
            answer = model(example, ids)
            for token in range(len(answer)) if n < longest else [0]:
                candidates.append((-(score + np.float64(answer[token])), place, token, ids))
        candidates.sort(key=lambda c: c[:3])
        for negative, _, token, ids in candidates[:width]:
            if token == 0 and -negative / ((5 + n + 1) / 6) ** alpha > best[1]:
                best = list(ids), -negative / ((5 + n + 1) / 6) ** alpha
        running = [(-negative, (*ids, token)) for negative, _, token, ids in candidates if token][:width]
    return best


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_the_best_of_all_translations(seed: int, alpha: float) -> None:
    vocabulary, longest = 4, np.array([3, 1, 4, 0])
    model, width = drawn(vocabulary, seed), 3**4
    found = beam_search(Stepper(model, 4, width), longest, width, alpha)
    for example, (ids, score) in enumerate(found):
        expected, best = enumerate_all(model, example, vocabulary, int(longest[example]), alpha)
        assert ids == expected and score == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("steps", [None, 1.0])
@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_beam_search_is_that_of_sorted_lists(width: int, alpha: float, steps: float | None) -> None:
    """In a batch and stopped early, it gives what each example gives alone to the end; ties too."""
    for seed in range(12):
        longest = np.random.Generator(np.random.Philox(key=seed)).integers(0, 9, 7)
        model = drawn(7, seed, steps)
        found = beam_search(Stepper(model, 7, width), longest, width, alpha)
        assert found == [plain_beam(model, i, int(n), width, alpha) for i, n in enumerate(longest)]


def test_rounded_models_do_have_ties() -> None:
    answers = [drawn(7, seed, 1.0)(0, ()) for seed in range(12)]
    assert all(len(set(answer.tolist())) < 7 for answer in answers)


def test_of_equal_candidates_the_lower_token_and_the_better_hypothesis_win() -> None:
    def model(example: int, prefix: tuple[int, ...]) -> np.ndarray:
        return np.log(np.full(5, 0.2, np.float32))

    # no penalty: the empty translation is likelier than any other
    assert beam_search(Stepper(model, 1, 2), np.array([3]), 2, 0.0) == [([], pytest.approx(np.log(0.2)))]
    # the longest is the best, and all of them are equal
    assert beam_search(Stepper(model, 1, 2), np.array([3]), 2, 9.0)[0][0] == [1, 1, 1]

    def ends_at_two(example: int, prefix: tuple[int, ...]) -> np.ndarray:
        ending = np.array([-1, -9, -9, -9, -9], np.float32)
        return ending if len(prefix) == 2 else np.array([-np.inf, -2, -1, -1, -2], np.float32)

    assert beam_search(Stepper(ends_at_two, 1, 3), np.array([3]), 3, 0.0) == [([2, 2], -3.0)]


def test_scores_are_added_in_float64() -> None:
    """In float32 the two would be equal after the first token, and the lower one would win."""

    def model(example: int, prefix: tuple[int, ...]) -> np.ndarray:
        if not prefix:
            return np.array([-np.inf, -4e7, -4e7, -4e7], np.float32)
        if len(prefix) == 1:
            return np.array([-3 if prefix != (2,) else -2.5, *[-np.inf] * 3], np.float32)
        raise AssertionError

    assert np.float32(-4e7) - np.float32(2.5) == np.float32(-4e7) - np.float32(3)
    assert beam_search(Stepper(model, 1, 3), np.array([1]), 3, 0.0) == [([2], -4e7 - 2.5)]


def test_a_search_ends_at_the_boundary_or_at_the_longest() -> None:
    longest = np.array([4, 2])
    for decode in (lambda s: greedy(s, longest, 0.0), lambda s: beam_search(s, longest, 1, 0.0)):
        never = Stepper(always(-50.0, -1.0, -2.0), 2, 1)
        assert decode(never) == [([1] * 4, -54.0), ([1] * 2, -52.0)]  # the end that was forced on it counts
        assert never.steps == 5
        at_once = Stepper(always(-0.5, -1.0, -2.0), 2, 1)
        assert decode(at_once) == [([], -0.5)] * 2
        assert at_once.steps == 1


def test_a_search_stops_when_nothing_can_win() -> None:
    """The empty translation has -1; one that runs has -2 n, which is divided by (15 / 6) ** alpha at most."""
    for alpha, steps in ((0.0, 1), (1.0, 2), (2.0, 4)):
        stepper = Stepper(always(-1.0, -2.0, -9.0), 1, 2)
        assert beam_search(stepper, np.array([9]), 2, alpha) == [([], -1.0)]
        assert stepper.steps == steps


def test_a_search_waits_for_what_can_win_by_its_length() -> None:
    def model(example: int, prefix: tuple[int, ...]) -> np.ndarray:
        return np.array([-2.0 if len(prefix) in (0, 6) else -30.0, -0.25, -30.0], np.float32)

    assert beam_search(Stepper(model, 1, 2), np.array([9]), 2, 0.0)[0] == ([], -2.0)
    score = (-6 * 0.25 - 2.0) / (12 / 6)
    assert beam_search(Stepper(model, 1, 2), np.array([9]), 2, 1.0)[0] == ([1] * 6, pytest.approx(score))


def test_an_unlikely_end_is_no_translation() -> None:
    """An ended translation must be among the best of its step: else the empty one would beat every long one."""

    def model(example: int, prefix: tuple[int, ...]) -> np.ndarray:
        return np.array([-8.0 if len(prefix) < 5 else -0.1, -3.0, -3.1, -3.2], np.float32)

    assert beam_search(Stepper(model, 1, 3), np.array([9]), 3, 0.0)[0] == ([1] * 5, pytest.approx(-15.1))
    assert beam_search(Stepper(model, 1, 4), np.array([9]), 4, 0.0)[0] == ([], -8.0)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_search_ends_on_broken_log_probabilities(bad: float) -> None:
    longest = np.array([4, 3])
    for decode in (lambda s: greedy(s, longest, 0.6), lambda s: beam_search(s, longest, 1, 0.6)):
        stepper = Stepper(always(bad, bad, bad, bad), 2, 1)
        assert len(decode(stepper)) == 2 and stepper.steps <= 5


def test_a_step_may_return_memory_that_must_not_be_changed() -> None:
    model = drawn(6, 1)

    def step(tokens: np.ndarray, parents: np.ndarray) -> np.ndarray:
        answer = stepper(tokens, parents)
        answer.setflags(write=False)
        return answer

    stepper = Stepper(model, 2, 3)
    expected = beam_search(Stepper(model, 2, 3), np.array([5, 5]), 3, 0.6)
    assert beam_search(step, np.array([5, 5]), 3, 0.6) == expected


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_greedy_takes_the_likeliest_each_time(alpha: float) -> None:
    for seed in range(10):
        longest = np.random.Generator(np.random.Philox(key=seed)).integers(0, 9, 5)
        model = drawn(4, seed, 1.0 if seed % 2 else None)
        for example, (ids, score) in enumerate(greedy(Stepper(model, 5, 1), longest, alpha)):
            expected: tuple[int, ...] = ()
            while len(expected) < longest[example] and (token := int(np.argmax(model(example, expected)))):
                expected = (*expected, token)
            assert tuple(ids) == expected
            assert score == pytest.approx(logp(model, example, expected) / ((6 + len(ids)) / 6) ** alpha, rel=1e-12)


def test_penalty_is_equation_14() -> None:
    assert penalty(1, 0.6) == 1.0
    assert penalty(np.array([1, 7, 13]), 1.0).tolist() == [1.0, 2.0, 3.0]
    assert penalty(7, 0.5) == pytest.approx(2**0.5)
    assert penalty(100, 0.0) == 1.0
