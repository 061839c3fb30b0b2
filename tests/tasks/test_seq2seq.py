"""The task seq2seq: how it searches, the loss of both twins against numpy, what is measured."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.backend import Backends
from tests.support.search import Model, Stepper, drawn
from toolkit.data.columns.text import TextValues
from toolkit.decoding.autoregressive import beam_search, greedy
from toolkit.metrics import text as metrics
from toolkit.tasks.seq2seq.spec import Seq2Seq
from toolkit.training.evaluation import answer_batch

# --- decoding --------------------------------------------------------------------------------------------------------


def test_the_longest_translation_grows_with_the_source() -> None:
    spec = Seq2Seq(max_length_ratio=1.5, max_length_extra=10)
    assert spec.longest(np.array([1, 2, 3, 100], np.int32)).tolist() == [11, 13, 14, 160]
    assert spec.longest(np.array([1, 2, 3, 100], np.int32), positions=14).tolist() == [11, 13, 13, 13]


# --- evaluation ------------------------------------------------------------------------------------------------------


class Engine:
    """Hands out steps of a model and made losses; keeps the widths it was asked for."""

    def __init__(self, answer: Model) -> None:
        self.answer, self.widths = answer, list[int]()

    def evaluate(self, batch: Any) -> dict[str, np.ndarray]:
        return {"loss": np.array([1.5, 2.5], np.float32), "tokens": np.array([3, 1])}

    def stepper(self, batch: Any, width: int) -> Stepper:
        self.widths.append(width)
        return Stepper(self.answer, 2, width)


class Tokenizer:
    def decode(self, ids: list[int]) -> str:
        return " ".join(f"w{i}" for i in ids)


def answered(engine: Engine, task: Seq2Seq, lengths: np.ndarray, quick: bool, longest: int | None = None) -> Any:
    """Answers to a batch of examples 7 and 3, by example."""
    run: Any = SimpleNamespace(task=task, model=SimpleNamespace(longest=longest))
    batch = {"example": np.array([7, 3]), "source_lengths": lengths}
    return dict(answer_batch(run, engine, batch, Tokenizer(), labelled=True, quick=quick))  # type: ignore[arg-type]


@pytest.mark.parametrize("decoder, quick, width", [("beam", False, 4), ("beam", True, 1), ("greedy", False, 1)])
def test_answers_are_searched_for_at_the_end_and_greedy_between_epochs(decoder: Any, quick: bool, width: int) -> None:
    spec, model = Seq2Seq(decoder=decoder, beam_width=4, max_length_extra=2), drawn(6, 5)
    engine, lengths = Engine(model), np.array([4, 1], np.int32)
    rows = answered(engine, spec, lengths, quick)
    assert engine.widths == [width]
    if width == 1:
        expected = greedy(Stepper(model, 2, 1), spec.longest(lengths), 0.6)
    else:
        expected = beam_search(Stepper(model, 2, width), spec.longest(lengths), width, 0.6)
    assert rows == {
        7: {"hypothesis": Tokenizer().decode(expected[0][0]), "score": expected[0][1], "loss": 1.5, "tokens": 3},
        3: {"hypothesis": Tokenizer().decode(expected[1][0]), "score": expected[1][1], "loss": 2.5, "tokens": 1},
    }


@pytest.mark.parametrize("quick", [True, False])
def test_no_translation_outgrows_the_models_positions(quick: bool) -> None:
    def endless(example: int, prefix: tuple[int, ...]) -> np.ndarray:
        assert len(prefix) < 6, "one position more than the model has"
        return np.array([-9, -0.1, -3], np.float32)

    lengths = np.array([4, 1], np.int32)
    rows = answered(Engine(endless), Seq2Seq(), lengths, quick, longest=6)
    assert [rows[i]["hypothesis"] for i in (7, 3)] == ["w1 w1 w1 w1 w1"] * 2


def test_beam_search_of_width_1_is_not_greedy() -> None:
    """Greedy search ends with the boundary, whose probability is 0.4; what follows the next token is better."""
    table = np.log(np.array([[0.4, 0.38, 0.22], [0.98, 0.01, 0.01], [0.9, 0.05, 0.05]]))
    model = lambda example, prefix: table[prefix[-1] if prefix else 0].astype(np.float32)  # noqa: E731
    engine = Engine(model)
    rows = answered(engine, Seq2Seq(beam_width=1), np.array([4, 4]), quick=False)
    assert [rows[i]["hypothesis"] for i in (7, 3)] == ["w1", "w1"] and engine.widths == [1]
    rows = answered(engine, Seq2Seq(decoder="greedy"), np.array([4, 4]), quick=False)
    assert [rows[i]["hypothesis"] for i in (7, 3)] == ["", ""]


def test_greedy_and_beam_differ_in_this_test() -> None:
    spec, model, lengths = Seq2Seq(max_length_extra=2), drawn(6, 5), np.array([4, 1])
    one, other = (answered(Engine(model), spec, lengths, quick) for quick in (True, False))
    assert one != other and one.keys() == other.keys()


def test_measures_are_of_the_corpus_and_the_loss_of_all_tokens() -> None:
    rows = [
        {"reference": "The cat sat on the mat.", "hypothesis": "the cat sat on the mat.", "loss": 1.0, "tokens": 9},
        {"reference": "It rained all day long.", "hypothesis": "It rained all day long.", "loss": 3.0, "tokens": 1},
    ]
    found = Seq2Seq().measure(rows, TextValues([]))
    assert found["loss"] == pytest.approx(1.2)
    assert found["bleu_lc"] == pytest.approx(100) and found["bleu"] < 95
    references, hypotheses = [r["reference"] for r in rows], [r["hypothesis"] for r in rows]
    assert found["bleu"] == metrics.bleu(references, hypotheses)
    assert found["chrf"] == metrics.chrf(references, hypotheses) < 100
    assert [*found] == [metric.name for metric in Seq2Seq.metrics]


def test_signatures_and_details() -> None:
    found = Seq2Seq().signatures(TextValues([]))
    assert found["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert found["bleu_lc"].startswith("nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:")
    assert found["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert Seq2Seq().detail({"reference": "a b c", "hypothesis": "a b c"}) == {"chrf": 100.0}
    assert Seq2Seq().detail({"reference": "a b c", "hypothesis": ""}) == {"chrf": 0.0}


# --- the loss of the twins -------------------------------------------------------------------------------------------

VOCABULARY = 7
# name -> tokens of each translation, of how many the batch has room, label smoothing, scale of the logits
CASES: dict[str, tuple[list[list[int]], int, float, float]] = {
    "usual": ([[3, 1, 2, 6], [5], [], [4, 4]], 4, 0.1, 1.0),
    "not smoothed": ([[3, 1, 2, 6], [5], [], [4, 4]], 4, 0.0, 3.0),
    "mostly smoothing": ([[1, 2], [3, 4]], 2, 0.9, 1.0),
    "much padding": ([[3, 1, 2, 6], [5], [], [4, 4]], 9, 0.1, 1.0),
    "large logits": ([[3, 1, 2, 6], [5]], 5, 0.1, 5000.0),
    "all empty": ([[], []], 0, 0.1, 1.0),
}


def arrays(name: str) -> dict[str, np.ndarray]:
    translations, room, smoothing, scale = CASES[name]
    draw = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    tokens = np.zeros((len(translations), room), np.int32)
    for row, ids in zip(tokens, translations, strict=True):
        row[: len(ids)] = ids
    return {
        "example": np.arange(len(translations)),
        "source": draw.integers(0, 3, (len(translations), 4)).astype(np.int32),
        "source_lengths": np.full(len(translations), 4, np.int32),
        "tokens": tokens,
        "token_lengths": np.array([len(ids) for ids in translations], np.int32),
        "table": np.asarray((draw.standard_normal((VOCABULARY, VOCABULARY)) * scale).astype(np.float32)),
        "smoothing": np.array(smoothing),
    }


def reference(name: str) -> dict[str, np.ndarray]:
    """Loss, gradient by the table and evaluation in float64, a target at a time, by the definition with one-hots."""
    translations, _, smoothing, _ = CASES[name]
    data = arrays(name)
    table = data["table"].astype(np.float64)
    total, gradient, means = 0.0, np.zeros_like(table), []
    count = sum(len(ids) + 1 for ids in translations)
    for ids, seen in zip(translations, data["source"].sum(1), strict=True):
        plain = []
        for previous, target in zip([0, *ids], [*ids, 0], strict=True):
            hot = np.eye(VOCABULARY)[target]
            logits = table[previous] + seen * table[0]
            plain.append(-log_softmax(logits)[target])
            wanted = (1 - smoothing) * hot + smoothing / VOCABULARY
            total -= wanted @ log_softmax(2 * logits)
            slope = 2 * (np.exp(log_softmax(2 * logits)) - wanted) / count
            gradient[previous] += slope
            gradient[0] += seen * slope
        means.append(np.mean(plain))
    return {"loss": np.array(total / count), "gradient": gradient, "evaluate/loss": np.array(means)}


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


@pytest.fixture(scope="module")
def twins(backends: Backends) -> dict[str, dict[str, np.ndarray]]:
    given = {f"{name}/{key}": value for name in CASES for key, value in arrays(name).items()}
    return backends.compute("seq2seq", "compute", given)


BOTH = pytest.mark.parametrize("backend", ["torch", "tf"])


@BOTH
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind, near", [("float64", 1e-12), ("float32", 2e-6)])
def test_loss_is_that_of_the_definition(name: str, backend: str, kind: str, near: float, twins: Any) -> None:
    for key, expected in reference(name).items():
        found = twins[backend][f"{name}/{kind}/{key}"]
        assert found.dtype == kind and found.shape == expected.shape
        assert np.abs(found - expected).max() <= near * max(np.abs(expected).max(), 1.0), key


@BOTH
@pytest.mark.parametrize("name", CASES)
def test_what_is_counted_and_what_the_model_sees(name: str, backend: str, twins: Any) -> None:
    found, data = twins[backend], arrays(name)
    assert np.array_equal(found[f"{name}/float32/evaluate/tokens"], data["token_lengths"] + 1)
    assert np.array_equal(found[f"{name}/float32/previous"], np.pad(data["tokens"], ((0, 0), (1, 0))))
    assert np.isfinite(found[f"{name}/bfloat16/loss"])


@BOTH
@pytest.mark.parametrize("name", CASES)
def test_a_step_gives_log_probabilities(name: str, backend: str, twins: Any) -> None:
    """After two steps, the parents of which are the first rows of their examples."""
    data, found = arrays(name), twins[backend][f"{name}/float64/log_probs"]
    table, seen = data["table"].astype(np.float64), np.repeat(data["source"].sum(1), 2)
    for row, log_probs in enumerate(found):
        expected = log_softmax(table[row % VOCABULARY] + seen[row] * table[0])
        assert np.allclose(log_probs, expected, rtol=1e-6, atol=1e-6)


def test_the_stock_fit_clips_and_reports_the_raw_loss(twins: Any) -> None:
    tf = twins["tf"]
    assert tf["fit/loss"] == pytest.approx(tf[f"{tf['fit/name']}/float32/loss"], rel=1e-6)
    assert tf["fit/moved"] == pytest.approx(1e-3, rel=1e-2)
