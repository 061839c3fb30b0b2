"""Answers to a user's inputs, given by a stand-in for the engine."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.bad_input import RATE, encoded, good_rows, waveform, write_csv
from tests.support.corpora import Silent, both_stages, learned, prepare, run_of
from tests.support.made import FOLDERS
from toolkit.data import pipeline, questions
from toolkit.data.columns.column import columns_of
from toolkit.data.example import File
from toolkit.data.media import audio
from toolkit.datasets.audio_folder import AudioFolder
from toolkit.datasets.image_folder import ImageFolder
from toolkit.errors import ConfigError, DataError
from toolkit.runs import predictor
from toolkit.runs.predictor import Predictor

LONGEST = 2.0  # seconds


@pytest.fixture(autouse=True)
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of the examples of each call of the engine, which answers with the seconds of a recording."""
    calls: list[list[str]] = []

    def answer(run: Any, engine: Any, data: Any, target: Any, **_: Any) -> list[dict[str, Any]]:
        split = data.split
        calls.append(split.ids)
        lengths = data.collator(np.arange(len(split)), 0).get("waveform_lengths", np.zeros(len(split)))
        texts = [f"{length / RATE:.1f}" for length in lengths]
        return [{"id": name, "hypothesis": text, "score": -1.0} for name, text in zip(split.ids, texts, strict=True)]

    monkeypatch.setattr(predictor, "answer_split", answer)
    return calls


@pytest.fixture
def model(tmp_path: Path) -> Predictor:
    """A recogniser of recordings."""
    write_csv(tmp_path / "data", good_rows(tmp_path / "data"))
    run = run_of(AudioFolder(path=str(tmp_path / "data"), max_seconds=LONGEST))
    both_stages(run, tmp_path)
    columns = columns_of(run)
    return Predictor(run, columns, pipeline.load(columns, tmp_path / "learned"), None)  # type: ignore[arg-type]


@pytest.fixture
def recordings(tmp_path: Path) -> Iterator[Any]:
    """A function that writes a recording of some seconds."""

    def write(name: str, seconds: float) -> str:
        file = tmp_path / name
        file.write_bytes(encoded(waveform(80, seconds, RATE), RATE))
        return str(file)

    yield write


def test_every_input_has_one_answer_in_its_place(model: Predictor, recordings: Any) -> None:
    good = recordings("good.wav", 0.5)
    lines: list[str] = []
    rows = list(model.answers(["gone.wav", good, "", good], "drop", lines.append))
    assert [row["id"] for row in rows] == ["gone.wav", good, "''", good]
    assert [row["hypothesis"] for row in rows] == ["", "0.5", "", "0.5"]
    assert rows[0]["problem"].startswith("no such file: found nothing at") and "problem" not in rows[1]
    assert [line.split(": ")[:2] for line in lines] == [["not answered", "gone.wav"], ["not answered", "''"]]


def test_inputs_are_refused_as_a_whole_by_default(model: Predictor, recordings: Any) -> None:
    with pytest.raises(DataError) as refused:
        model(["gone.wav", recordings("good.wav", 0.5)])
    assert refused.value.headline == "1 of 2 inputs cannot be answered:"
    assert refused.value.problems[1:] == ["dataset.on_bad=drop answers the others"]
    with pytest.raises(DataError) as refused:
        model(["gone.wav"] * 60)
    assert refused.value.problems[50:] == ["... and 10 more"]


def test_a_long_recording_is_answered_in_pieces(model: Predictor, recordings: Any, batches: Any) -> None:
    long, lines = recordings("long.wav", 5.2), list[str]()
    rows = list(model.answers([long, recordings("short.wav", 0.5)], "refuse", lines.append))
    assert len(batches) == 1 and batches[0][:-1] == [long] * (len(batches[0]) - 1)
    seconds = [float(word) for word in rows[0]["hypothesis"].split(" ")]
    assert len(rows) == 2 and max(seconds) <= LONGEST and sum(seconds) == pytest.approx(5.2, abs=0.2)
    assert rows[0]["id"] == long and rows[0]["score"] == -len(seconds)
    count = f"split at pauses into {len(seconds)} pieces of at most 2 s (dataset.max_seconds)"
    assert lines == [f"{long}: 5.2 s, {count}"]


def test_pieces_fit_the_positions_of_the_model(model: Predictor, recordings: Any, batches: Any) -> None:
    model.run.model.longest = 20
    model.run.features = model.columns.input.component
    limit = model.run.task.limit(model.run)
    frames = [model.run.features.frames(limit.size + more) // 4 for more in (0, 1)]
    assert frames == [20, 21] and limit.field == "model.max_positions"
    lines: list[str] = []
    (row,) = model.answers([recordings("long.wav", 3.0)], "refuse", lines.append)
    assert len(batches[0]) > 3 and max(map(float, row["hypothesis"].split())) <= limit.size / RATE
    assert lines[0].endswith("s (model.max_positions)")


def test_a_task_that_joins_no_pieces_gets_the_first(model: Predictor, recordings: Any, batches: Any) -> None:
    model.run.task = SimpleNamespace(joins=False, limit=model.run.task.limit, unfit=model.run.task.unfit)
    long, lines = recordings("long.wav", 5.2), list[str]()
    (row,) = model.answers([long], "refuse", lines.append)
    assert batches == [[long]] and 1 <= float(row["hypothesis"]) <= LONGEST
    assert lines == [f"{long}: 5.2 s, cut to its first piece of at most 2 s (dataset.max_seconds)"]


def test_pieces_have_the_silence_of_the_dataset(model: Predictor, recordings: Any) -> None:
    file = Path(recordings("long.wav", 3.1))
    dataset = replace(model.run.dataset, silence=0.25)
    column = type(model.columns.input)("audio", "input", dataset, model.run.features)
    samples = audio.decode(file.read_bytes(), file.name, RATE)
    quiet = column.shorten(column.decode_questions([File(file)], [""], None, Silent()).values, None, True)
    pieces = [quiet.values.waveform(i) for i in range(len(quiet.values))]
    assert [len(piece) for piece in pieces] == quiet.values.lengths.tolist() and quiet.positions == [0] * len(pieces)
    edge = RATE // 4
    np.testing.assert_array_equal(np.concatenate([piece[edge:-edge] for piece in pieces]), samples)
    assert not any(piece[:edge].any() or piece[-edge:].any() for piece in pieces)


def test_answers_come_in_chunks(
    model: Predictor, recordings: Any, batches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "CHUNK", 2)
    good = recordings("good.wav", 0.5)
    asked: list[str] = []

    def inputs() -> Iterator[str]:
        for name in [good] * 5:
            asked.append(name)
            yield name

    answers = model.answers(inputs(), "drop")
    assert next(answers)["id"] == good and len(asked) == 2
    assert len(list(answers)) == 4 and [len(ids) for ids in batches] == [2, 2, 1]
    batches.clear()
    monkeypatch.setattr(questions, "CHUNK", 100)
    monkeypatch.setattr(questions, "CHUNK_BYTES", 2 * Path(good).stat().st_size)
    assert len(list(model.answers([good] * 5, "drop"))) == 5 and [len(ids) for ids in batches] == [2, 2, 1]


def test_an_input_without_an_answer_is_a_python_warning(model: Predictor) -> None:
    with pytest.warns(UserWarning, match=r"not answered: a\.wav: no such file: found nothing"):
        assert [row["hypothesis"] for row in model.answers(["a.wav"], "drop")] == [""]


def test_one_text_in_place_of_a_list_is_refused(model: Predictor) -> None:
    with pytest.raises(ConfigError, match=r"inputs: found 'a\.wav', expected a list: \['a\.wav'\]"):
        model("a.wav")
    with pytest.raises(ConfigError, match=r"-: standard input is not supported for a recording; .* --from -"):
        model(["-"])


@pytest.mark.parametrize("failing", [False, True])
def test_decoded_inputs_are_removed_with_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    folder = FOLDERS["images"][1](tmp_path / "images", train=2, validation=2, test=2)
    run = run_of(ImageFolder(path=str(folder)))
    known = learned(run, prepare(run.dataset, tmp_path / "prepared"), tmp_path / "run")
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "cache"))
    files: list[Path] = []

    def unfit(*_: Any) -> dict[int, Any]:
        files.extend((tmp_path / "cache").glob("*/images/*.arrow"))
        if failing:
            raise DataError("no")
        return {}

    monkeypatch.setattr(pipeline, "unfit", unfit)
    model = Predictor(run, columns_of(run), known, None)  # type: ignore[arg-type]
    file = str(next(folder.glob("test/*/*.png")))
    with pytest.raises(DataError) if failing else contextlib.nullcontext():
        assert [row["id"] for row in model([file])] == [file]
    assert len(files) == 1 and not list((tmp_path / "cache").iterdir())
