"""Recordings of a run: cached waveforms, fingerprints, batches, and recordings given for prediction."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.bad_input import RATE, good_rows, write_csv
from tests.support.corpora import no_decoding, prepare
from toolkit.data.media import audio
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
