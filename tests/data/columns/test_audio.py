"""Recordings of a run: cached waveforms, fingerprints, batches, and recordings given for prediction."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.bad_input import RATE, encoded, good_rows, waveform, write_csv
from tests.support.corpora import both_stages, given, no_decoding, prepare, run_of
from toolkit.data.columns.audio import MASKS
from toolkit.data.columns.column import columns_of
from toolkit.data.media import audio
from toolkit.data.pipeline import load
from toolkit.data.split import batch_fields, batched
from toolkit.datasets.audio_folder import AudioFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_csv(tmp_path / "data", good_rows(tmp_path / "data"))
    return tmp_path / "data"


def folder(path: Path) -> AudioFolder:
    return AudioFolder(path=str(path))


def test_waveforms_are_views_of_the_mapped_file(data: Path, tmp_path: Path) -> None:
    corpus = prepare(folder(data), tmp_path / "cache")
    split = corpus.splits["train"]
    for i, name in enumerate(split.ids):
        wave = split.input.waveform(i)
        expected = audio.decode((data / f"{name}.wav").read_bytes(), "a.wav", RATE)
        np.testing.assert_array_equal(wave, expected)
        assert wave.dtype == np.float32 and not wave.flags.owndata and not wave.flags.writeable
        assert len(wave) == split.input.lengths[i]
    again = pickle.loads(pickle.dumps(split))  # as a loader's worker process gets it
    np.testing.assert_array_equal(again.input.waveform(3), split.input.waveform(3))


def test_many_record_batches(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare(folder(data), tmp_path / "cache")
    monkeypatch.setattr("toolkit.data.cache.BATCH_BYTES", 4 * (2 * RATE + 1))
    parts = prepare(folder(data), tmp_path / "other")
    for name, split in whole.splits.items():
        for i in range(len(split)):
            np.testing.assert_array_equal(parts.splits[name].input.waveform(i), split.input.waveform(i))


def test_a_new_transcript_is_another_corpus_but_decodes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(folder(data), tmp_path / "cache")
    no_decoding(monkeypatch, audio)
    text = (data / "metadata.csv").read_text()
    (data / "metadata.csv").write_text(text.replace("lazy dogs", "lazy hogs"))
    assert prepare(folder(data), tmp_path / "cache").fingerprint != first.fingerprint


def test_the_fingerprint_knows_ids_texts_splits_audio_and_rate(data: Path, tmp_path: Path) -> None:
    def fingerprint(change: tuple[str, str] = ("", ""), **fields: Any) -> str:
        text = (data / "metadata.csv").read_text()
        (data / "metadata.csv").write_text(text.replace(*change, 1) if change[0] else text)
        try:
            corpus = prepare(AudioFolder(path=str(data), **fields), tmp_path / "cache")
        finally:
            (data / "metadata.csv").write_text(text)
        return corpus.fingerprint

    (data / "other.wav").write_bytes((data / "good_00.wav").read_bytes())
    found = [
        fingerprint(),
        fingerprint(("good_00.wav", "other.wav")),  # another id of the same audio
        fingerprint(("lazy dogs", "lazy hogs")),
        fingerprint(("big brews,train", "big brews,validation")),  # the order of all recordings stays
        fingerprint(sample_rate=8000),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint() == found[0]


def test_a_training_batch_has_masks_and_an_evaluation_batch_none(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data))
    columns, corpus = columns_of(run), both_stages(run, tmp_path)
    known = load(columns, tmp_path / "learned")
    split, positions = corpus.splits["train"], np.array([3, 0])
    training = batched(run, columns, split, known, True).collator
    found = pickle.loads(pickle.dumps(training))(positions, 4)
    fields = batch_fields(columns, "training")
    assert {name: (array.ndim, array.dtype) for name, array in found.items()} == {
        name: (len(axes), np.dtype(kind)) for name, (axes, kind) in fields.items()
    }
    for row, position in enumerate(positions):
        np.testing.assert_array_equal(found["waveforms"][row, :RATE], split.input.waveform(position))
        frames = int(run.features.frames(split.input.lengths[position]))
        times, bands = run.features.draw(frames, run.seed, 4, int(position))
        np.testing.assert_array_equal(found["time_masks"][row], times)
        np.testing.assert_array_equal(found["frequency_masks"][row], bands)
    evaluation = batched(run, columns, split, known, False).collator(positions, 4)
    assert evaluation.keys() == batch_fields(columns, "evaluation").keys() == fields.keys() - MASKS.keys()


def test_recordings_given_to_a_run(data: Path, tmp_path: Path) -> None:
    run = run_of(folder(data))
    both_stages(run, tmp_path)
    known = load(columns_of(run), tmp_path / "learned")
    (tmp_path / "page.wav").write_bytes(b"<html>")
    (tmp_path / "other.wav").write_bytes(encoded(waveform(80, 0.5, 8000), 8000))
    good, page = str(tmp_path / "other.wav"), str(tmp_path / "page.wav")
    (asked,) = given(run, [good, page, "gone.wav", good], known, tmp_path / "inputs")
    assert asked.split.ids == [good, good] and asked.split.target is None and asked.owners == [0, 3]
    assert asked.split.input.lengths.tolist() == [RATE // 2] * 2
    assert [(place, problem.where, problem.kind) for place, problem in asked.problems.items()] == [
        (1, page, "mislabelled"),
        (2, "gone.wav", "no such file"),
    ]
