"""Named datasets of recordings: checkouts, and repositories of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import hub
from tests.support.audio_layouts import write_layout
from tests.support.bad_input import RATE, encoded, waveform
from tests.support.corpora import no_decoding, prepare, sizes
from toolkit.data.example import SPLITS
from toolkit.data.media import audio
from toolkit.datasets import common_voice, fsdd, librispeech, speech_commands
from toolkit.errors import DataError


def test_fsdd_from_a_checkout_follows_the_official_rule(tmp_path: Path) -> None:
    target = tmp_path / "fsdd/recordings"
    target.mkdir(parents=True)
    for take in (0, 4, 5, 9, 10, 49):
        (target / f"7_theo_{take}.wav").write_bytes(encoded(waveform(take, 0.3, 8000), 8000))
    corpus = prepare(fsdd.FSDD(path=str(tmp_path / "fsdd")), tmp_path / "cache")
    assert {name: sorted(split.ids) for name, split in corpus.splits.items()} == {
        "train": ["7_theo_10", "7_theo_49"],
        "validation": ["7_theo_5", "7_theo_9"],
        "test": ["7_theo_0", "7_theo_4"],
    }
    assert set(corpus.splits["train"].references) == {"seven"}
    silence = 2400  # 0.15 s before and after the 0.3 s
    assert corpus.splits["test"].input.lengths.tolist() == [4800 + 2 * silence] * 2
    padded = corpus.splits["test"].input.waveform(0)
    assert len(padded) == 4800 + 2 * silence
    assert not padded[:silence].any() and not padded[-silence:].any() and padded[silence:-silence].any()
    (target / "seven.wav").write_bytes(encoded(waveform(1)))
    with pytest.raises(DataError, match=r"recordings/seven.wav: unknown file name"):
        prepare(fsdd.FSDD(path=str(tmp_path / "fsdd")), tmp_path / "cache")


def test_fsdd_from_split_folders(tmp_path: Path) -> None:
    write_layout(tmp_path / "fsdd", "folders with csv")
    assert sizes(prepare(fsdd.FSDD(path=str(tmp_path / "fsdd")), tmp_path / "cache")) == (8, 2, 2)


def test_librispeech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {s: [{"id": f"{s}-1", "text": f"{s} TEXT".upper()}] for s in ("train.100", "validation", "test")}
    source = hub.recordings(tmp_path / "hub", "clean", parts, {"id": hub.STRING, "text": hub.STRING})
    corpus = prepare(librispeech.LibriSpeech(path=str(source)), tmp_path / "cache")
    assert sizes(corpus) == (1, 1, 1) and corpus.splits["train"].references == ["train.100 text"]
    assert len(corpus.splits["train"].input.waveform(0)) == RATE
    no_decoding(monkeypatch, audio)
    assert prepare(librispeech.LibriSpeech(path=str(source)), tmp_path / "cache").fingerprint == corpus.fingerprint


def test_common_voice(tmp_path: Path) -> None:
    parts = {
        s: [{"path": f"{s}_1.mp3", "sentence": "Don\N{RIGHT SINGLE QUOTATION MARK}t (stop), Zoë!"}] for s in SPLITS
    }
    source = hub.recordings(tmp_path / "hub", "en", parts, {"path": hub.STRING, "sentence": hub.STRING})
    corpus = prepare(common_voice.CommonVoice(path=str(source)), tmp_path / "cache")
    assert corpus.splits["test"].ids == ["test_1"] and corpus.splits["test"].references == ["don't stop zoë"]


def test_speech_commands_leaves_background_noise_out(tmp_path: Path) -> None:
    parts = {s: [{"file": f"yes/{s}_{i}.wav", "label": i} for i in range(3)] for s in SPLITS}
    label = {"_type": "ClassLabel", "names": ["yes", "_silence_", "no"]}
    source = hub.recordings(tmp_path / "hub", "v0.02", parts, {"file": hub.STRING, "label": label})
    corpus = prepare(speech_commands.SpeechCommands(path=str(source)), tmp_path / "cache")
    assert sizes(corpus) == (2, 2, 2) and corpus.splits["test"].references == ["yes", "no"]


def test_fsdd_from_the_hub_needs_file_names(tmp_path: Path) -> None:
    parts: dict[str, list[dict[str, Any]]] = {"train": [{"label": 7}], "test": [{"label": 7}]}
    source = hub.recordings(tmp_path / "hub", "default", parts, {"label": {"_type": "Value", "dtype": "int64"}})
    with pytest.raises(DataError, match=r"found '0.wav', expected DIGIT_SPEAKER_TAKE.wav"):
        prepare(fsdd.FSDD(repository=str(source)), tmp_path / "cache")
