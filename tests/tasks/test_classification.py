"""The classification task: what its spec measures and leaves in the run folder, and the twins' methods on a stub."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from tests.support.backend import Backends
from tests.workers.classification.cases import CLASSES, SMOOTHING, arrays
from toolkit.data.columns.label import Classes
from toolkit.tasks.classification.spec import Classification


@pytest.fixture(scope="module")
def twins(backends: Backends) -> dict[str, dict[str, np.ndarray]]:
    return backends.compute("classification", "compute", arrays())


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def reference(eps: float) -> dict[str, np.ndarray]:
    """The task in numpy, in float64: targets are distributions, which smoothing and mixing make."""
    data = arrays()
    pixels = data["images"].reshape(6, -1) / 255.0
    logits = pixels @ data["weight"].T.astype(np.float64)
    one = np.eye(CLASSES)[data["labels"]]
    share = data["shares"].astype(np.float64)[:, None]
    target = share * one + (1 - share) * one[data["partners"]]
    target = (1 - eps) * target + eps / CLASSES
    training = log_softmax(2 * logits)
    log_probs = log_softmax(logits)
    return {
        "loss": -(target * training).sum(1).mean(),
        "gradient": 2 / 6 * (np.exp(training) - target).T @ pixels,
        "evaluate/loss": -log_probs[np.arange(6), data["labels"]],
        "evaluate/log_probs": log_probs,
    }


@pytest.mark.parametrize("eps", [0.0, SMOOTHING])
@pytest.mark.parametrize("kind, tolerance", [("float64", 1e-12), ("float32", 2e-6), ("bfloat16", 5e-2)])
@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_task_methods_are_the_reference(backend: str, kind: str, tolerance: float, eps: float, twins: Any) -> None:
    for name, wanted in reference(eps).items():
        found = twins[backend][f"{kind}/{eps}/{name}"]
        loose = max(tolerance, 2e-6) if name == "evaluate/log_probs" else tolerance  # these leave as float32
        np.testing.assert_allclose(found, wanted, rtol=loose, atol=loose, err_msg=name)


@pytest.mark.parametrize("eps", [0.0, SMOOTHING])
@pytest.mark.parametrize("kind", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_predict_gives_the_outputs_of_evaluate(backend: str, kind: str, eps: float, twins: Any) -> None:
    predicted, evaluated = (twins[backend][f"{kind}/{eps}/{method}/log_probs"] for method in ("predict", "evaluate"))
    assert predicted.dtype == evaluated.dtype and np.array_equal(predicted, evaluated)


def test_stock_fit_reports_the_raw_loss_and_clips(twins: Any) -> None:
    assert twins["tf"]["fit/loss"] == pytest.approx(float(twins["tf"][f"float32/{SMOOTHING}/loss"]), rel=1e-6)
    assert twins["tf"]["fit/moved"] == pytest.approx(1e-3, rel=1e-3)


# --- what is measured ------------------------------------------------------------------------------------------------


NAMES = Classes(f"class {i}" for i in range(7))


def test_rows_name_the_likeliest_classes() -> None:
    probabilities = np.array([[0.1, 0.3, 0.05, 0.3, 0.15, 0.06, 0.04], [1 / 7] * 7])
    first, second = Classification().decode({"log_probs": np.log(probabilities).astype(np.float32)}, NAMES)
    assert first["hypothesis"] == "class 1" and first["score"] == pytest.approx(0.3)
    assert first["top5"] == ["class 1", "class 3", "class 4", "class 0", "class 5"]
    assert second["hypothesis"] == "class 0" and second["score"] == pytest.approx(1 / 7)
    assert second["top5"] == [f"class {i}" for i in range(5)]
    json.dumps([first, second])  # plain values, as the predictions file needs


@pytest.mark.parametrize("classes, counted", [(5, False), (6, True)])
def test_top5_is_measured_only_where_there_are_more_classes(classes: int, counted: bool) -> None:
    task = Classification()
    log_probs = np.log(np.full((3, classes), 1 / classes)).astype(np.float32)
    rows = task.decode({"log_probs": log_probs}, NAMES)
    for row, reference in zip(rows, ("class 0", "class 4", f"class {classes - 1}"), strict=True):
        row["reference"] = reference
    wanted = {"accuracy": 1 / 3} | ({"top5": 2 / 3} if counted else {})
    assert task.measure(rows, None) == pytest.approx(wanted)
    assert [task.detail(row) for row in rows] == [{"right": True}, {"right": False}, {"right": False}]


def rows_of(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"reference": reference, "hypothesis": hypothesis} for reference, hypothesis in pairs]


# cat: 2 of 3 right; dog: 1 of 2; eel: 0 of 1, never found; fox: never true
ANIMALS = [("cat", "cat"), ("cat", "cat"), ("cat", "dog"), ("dog", "dog"), ("dog", "fox"), ("eel", "cat")]


def test_files_for_the_run_folder() -> None:
    from PIL import Image

    files = Classification().files(rows_of([*ANIMALS, ('newt, ñ"', "cat")]))
    assert list(files) == ["confusion_matrix.png", "classes.csv"]
    table = list(csv.reader(io.StringIO(files["classes.csv"].decode("utf-8"), newline="")))
    assert table[0] == ["class", "precision", "recall", "f1", "support"]
    assert table[1] == ["cat", "0.500000", "0.666667", "0.571429", "3"]
    assert [line[0] for line in table[1:]] == ["cat", "dog", "eel", "fox", 'newt, ñ"']
    with Image.open(io.BytesIO(files["confusion_matrix.png"])) as image:
        assert image.format == "PNG" and min(image.size) > 300


def test_the_table_shows_every_class_or_the_worst() -> None:
    few = Classification().table(rows_of([*ANIMALS, ("[bold]", "[bold]")]))
    for words in ("cat", "dog", "eel", "fox", "66.7 %", "dog (1)", "[bold]"):
        assert words in few
    names = [f"a class with a very long name {i}" for i in range(40)]
    pairs = [(name, name) for name in names for _ in range(3)] + [(names[7], names[39])]
    many = Classification().table(rows_of(pairs))
    assert "20 of 40 classes" in many and max(map(len, many.splitlines())) <= 100
    lines = [line for line in many.splitlines() if "a class" in line]
    assert len(lines) == 20 and "name 7 " in lines[0] and "name 39 (1)" in lines[0]
    assert "75.0 %" in lines[0]
