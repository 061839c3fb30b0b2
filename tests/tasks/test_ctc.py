"""The CTC task: decoding, the loss of the twins against each other, and the task's methods on a stub model."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from tests.support.backend import Backends
from toolkit.data.columns.text import TextValues
from toolkit.decoding.ctc import beam_search, greedy, needed_frames
from toolkit.tasks.ctc.spec import CTC

VOCABULARY = 6


def brute_force(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Log-probability of every transcript, by going through every path."""
    found: dict[tuple[int, ...], list[float]] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        ids = tuple(token for token, _ in itertools.groupby(path) if token)
        found.setdefault(ids, []).append(float(sum(row[c] for row, c in zip(log_probs, path, strict=True))))
    return {ids: float(np.logaddexp.reduce(scores)) for ids, scores in found.items()}


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def random_case(seed: int, batch: int, time: int, tokens: int, scale: float) -> dict[str, np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=seed))
    token_lengths = rng.integers(0, tokens + 1, batch).astype(np.int32)
    lengths = rng.integers(1, time + 1, batch).astype(np.int32)
    token_lengths[0], lengths[0] = tokens, time
    ids = rng.integers(1, VOCABULARY, (batch, tokens)).astype(np.int32)
    ids[np.arange(tokens) >= token_lengths[:, None]] = 0
    logits = rng.standard_normal((batch, time, VOCABULARY)) * scale
    return dict(
        logits=logits, tokens=ids, token_lengths=token_lengths, lengths=lengths, weight=rng.uniform(0.5, 2.0, batch)
    )


def given_case(tokens: list[list[int]], lengths: list[int], time: int) -> dict[str, np.ndarray]:
    case = random_case(9, len(tokens), time, max(1, *map(len, tokens)), 2.0)
    case["lengths"], case["token_lengths"] = np.array(lengths, np.int32), np.array(list(map(len, tokens)), np.int32)
    case["tokens"][:] = 0
    for row, ids in zip(case["tokens"], tokens, strict=True):
        row[: len(ids)] = ids
    return case


def cases() -> dict[str, dict[str, np.ndarray]]:
    made = {
        "usual": random_case(1, 8, 40, 12, 1.0),
        "peaked": random_case(2, 6, 60, 10, 12.0),
        "long": random_case(3, 2, 400, 100, 3.0),
        # as many frames as are needed, one too few, for plain and for repeated tokens; an empty one; one frame
        "edges": given_case(
            [[1, 2, 3], [1, 2, 3], [1, 1, 2, 2], [1, 1, 2, 2], [], [4], [4], [2, 2]], [3, 2, 6, 5, 7, 1, 7, 3], 7
        ),
        "all empty": given_case([[], []], [4, 2], 4),
    }
    made["no tokens axis"] = made["all empty"] | {"tokens": np.zeros((2, 0), np.int32)}
    return made


@pytest.fixture(scope="module")
def twins(backends: Backends) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.Generator(np.random.Philox(key=4))
    data = {f"{name}/{key}": value for name, case in cases().items() for key, value in case.items()}
    data |= {
        "task/waveforms": rng.standard_normal((3, 40)).astype(np.float32),
        "task/waveform_lengths": np.array([40, 32, 12], np.int32),
        "task/tokens": np.array([[1, 2, 2, 5], [3, 0, 0, 0], [1, 1, 1, 0]], np.int32),  # the last cannot be
        "task/token_lengths": np.array([4, 1, 3], np.int32),
        "task/time_masks": np.zeros((3, 1, 2), np.int32),
        "task/frequency_masks": np.zeros((3, 1, 2), np.int32),
        "task/weight": rng.standard_normal((6, 4)).astype(np.float32),
        "task/bias": rng.standard_normal(6).astype(np.float32),
    }
    found = backends.compute("ctc", "compute", data)
    return found["torch"], found["tf"]


@pytest.mark.parametrize("name", cases())
def test_twins_agree_in_float64(name: str, twins) -> None:
    torch, tf = twins
    for what in ("loss", "gradient"):
        a, b = torch[f"{name}/float64/{what}"], tf[f"{name}/float64/{what}"]
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-8, err_msg=what)


@pytest.mark.parametrize("name", cases())
def test_narrow_logits_lose_nothing_more(name: str, twins) -> None:
    """The loss is computed in float64 from what the logits were rounded to, so it differs by float64 alone; the
    gradient is that of float64, rounded to the logits' type once."""
    torch, tf = twins
    for kind, tolerance in (("float32", 2e-7), ("bfloat16", 2e-2)):
        np.testing.assert_allclose(tf[f"{name}/{kind}/loss"], torch[f"{name}/{kind}/loss"], rtol=1e-8, atol=1e-8)
        a, b = torch[f"{name}/{kind}/gradient"], tf[f"{name}/{kind}/gradient"]
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance)


def test_loss_is_the_sum_over_all_paths(twins) -> None:
    case = cases()["edges"]
    expected = []
    for logits, n, ids, m in zip(case["logits"], case["lengths"], case["tokens"], case["token_lengths"], strict=True):
        expected.append(-brute_force(log_softmax(logits[:n])).get(tuple(ids[:m].tolist()), -0.0))
    for found in twins:
        np.testing.assert_allclose(found["edges/float64/loss"], expected, rtol=1e-10, atol=1e-12)


def test_what_cannot_be_has_no_loss_and_no_gradient(twins) -> None:
    for found in twins:
        for row in (1, 3):
            assert found["edges/float64/loss"][row] == 0
            assert not found["edges/float64/gradient"][row].any()
        for row in (0, 2, 4, 5, 6, 7):
            assert found["edges/float64/loss"][row] > 0
            assert found["edges/float64/gradient"][row].any()


def test_frames_beyond_the_length_have_no_gradient(twins) -> None:
    case = cases()["usual"]
    for found in twins:
        for gradient, n in zip(found["usual/float64/gradient"], case["lengths"], strict=True):
            assert not gradient[n:].any()


def test_task_methods_agree(twins) -> None:
    torch, tf = twins
    keys = [k for k in torch if k.startswith("task/")]
    assert len(keys) == 14
    for key in keys:
        tolerance = 1e-8 if "float64" in key and "log_probs" not in key else 1e-6
        np.testing.assert_allclose(tf[key], torch[key], rtol=tolerance, atol=tolerance, err_msg=key)
    assert tf["task/float32/evaluate/loss"][2] == 0
    losses = tf["task/float64/evaluate/loss"]
    # the stub doubles its logits in training, so the mode was passed on
    assert not math.isclose(float(tf["task/float64/loss"]), float(losses.mean()), rel_tol=1e-3)


def test_predict_gives_the_outputs_of_evaluate(twins) -> None:
    for found in twins:
        for kind, name in itertools.product(("float32", "float64"), ("log_probs", "lengths")):
            predicted, evaluated = (found[f"task/{kind}/{method}/{name}"] for method in ("predict", "evaluate"))
            assert predicted.dtype == evaluated.dtype and np.array_equal(predicted, evaluated)


def test_stock_fit_reports_the_raw_loss_and_clips(twins) -> None:
    tf = twins[1]
    assert tf["fit/loss"] == pytest.approx(float(tf["task/float64/loss"]), rel=1e-6)
    assert tf["fit/moved"] == pytest.approx(1e-3, rel=1e-3)


def test_not_a_number_stays_one(backends: Backends) -> None:
    case = cases()["usual"]
    case["logits"][0, 3, 2] = np.nan
    for found in backends.compute("ctc", "losses", case).values():
        assert np.isnan(found["loss"][0]) and np.isfinite(found["loss"][1:]).all(), found


def test_greedy_collapses_the_best_path() -> None:
    paths = np.array([[1, 1, 0, 1, 2, 2, 0], [0, 0, 3, 3, 3, 1, 1]])
    log_probs = np.log(np.eye(4)[paths] * 0.7 + 0.1).astype(np.float32)
    found = greedy(log_probs, np.array([7, 5]))
    assert [ids for ids, _ in found] == [[1, 1, 2], [3]]
    assert [score for _, score in found] == pytest.approx([7 * math.log(0.8), 5 * math.log(0.8)])
    json.dumps(found)  # plain numbers, as the predictions file needs


def test_greedy_without_frames() -> None:
    assert greedy(np.zeros((2, 0, 4), np.float32), np.array([0, 0])) == [([], 0.0)] * 2
    assert greedy(np.zeros((1, 3, 4), np.float32), np.array([0])) == [([], 0.0)]


@pytest.mark.parametrize("seed", range(20))
def test_wide_beam_finds_the_best_transcript(seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    log_probs = log_softmax(rng.standard_normal((6, 4)) * 1.5).astype(np.float32)
    scores = brute_force(log_probs.astype(np.float64))
    best = max(scores, key=lambda ids: scores[ids])
    ids, score = beam_search(log_probs, 1000, 4)
    assert tuple(ids) == best
    assert score == pytest.approx(scores[best], rel=1e-9)


def test_beam_beats_the_best_path_where_paths_add_up() -> None:
    """Blank is the best token of both frames, yet most probability is on transcripts of one token."""
    log_probs = np.log(np.array([[0.4, 0.35, 0.25], [0.4, 0.35, 0.25]], np.float32))
    assert greedy(log_probs[None], np.array([2]))[0][0] == []
    assert beam_search(log_probs, 8, 3)[0] == [1]


def test_beam_prunes_tokens_and_prefixes() -> None:
    log_probs = np.log(np.array([[0.4, 0.35, 0.25], [0.4, 0.35, 0.25]], np.float32))
    assert beam_search(log_probs, 8, 1)[0] == []  # the blank alone
    assert beam_search(log_probs, 1, 3)[0] == []  # the likeliest prefix alone


def test_beam_ties_go_to_the_first_found() -> None:
    same = np.full((5, 6), -math.log(6), np.float32)
    assert all(beam_search(same, 4, 4) == beam_search(same, 4, 4) for _ in range(3))
    one = np.log(np.array([[0.2, 0.4, 0.4]], np.float32))
    assert beam_search(one, 3, 3)[0] == [1]
    assert beam_search(np.zeros((0, 3), np.float32), 3, 3) == ([], 0.0)


class Letters:
    """A tokenizer with a letter for each id."""

    def decode(self, ids: list[int]) -> str:
        return "".join("_abcd"[i] for i in ids)


def test_decode_takes_the_chosen_decoder_and_lengths() -> None:
    rng = np.random.Generator(np.random.Philox(key=5))
    log_probs = log_softmax(rng.standard_normal((3, 9, 5))).astype(np.float32)
    lengths = np.array([9, 4, 0], np.int32)
    assert CTC().hypotheses(log_probs, lengths) == greedy(log_probs, lengths)
    beam = CTC(decoder="beam", beam_width=3, beam_tokens=2)
    expected = [beam_search(frames[:n], 3, 2) for frames, n in zip(log_probs, lengths, strict=True)]
    assert beam.hypotheses(log_probs, lengths) == expected
    rows = beam.decode({"log_probs": log_probs, "lengths": lengths}, Letters())
    assert rows == [{"hypothesis": Letters().decode(ids), "score": score} for ids, score in expected]


def test_needed_frames_counts_repeats() -> None:
    assert [needed_frames(ids) for ids in ([], [1], [1, 2], [1, 1], [1, 1, 1, 2, 2])] == [0, 1, 2, 3, 8]


def test_measure_and_detail() -> None:
    task = CTC()
    pairs = [("please enter", "please under"), ("hello", "hello")]
    rows = [{"reference": reference, "hypothesis": hypothesis} for reference, hypothesis in pairs]
    assert task.measure(rows, TextValues([])) == {"wer": 1 / 3, "cer": 2 / 17}
    assert task.detail(rows[0]) == {"alignment": [["=", "please", "please"], ["S", "enter", "under"]]}
