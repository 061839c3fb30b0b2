"""The cache of decoded content: nothing is decoded twice, and no change, damage or kill goes unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.bad_input import RATE, encoded, good_rows, waveform, write_csv
from tests.support.corpora import no_decoding, prepare, sizes
from toolkit.data.media import audio
from toolkit.datasets.audio_folder import AudioFolder
from toolkit.errors import DataError, RunError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_csv(tmp_path / "data", good_rows(tmp_path / "data"))
    return tmp_path / "data"


def folder(path: Path) -> AudioFolder:
    return AudioFolder(path=str(path))


def test_a_second_run_decodes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(folder(data), tmp_path / "cache")
    no_decoding(monkeypatch, audio)
    second = prepare(folder(data), tmp_path / "cache")
    assert second.fingerprint == first.fingerprint and sizes(second) == sizes(first) == (8, 2, 2)


def test_changed_audio_is_seen_even_with_the_old_size_and_time(data: Path, tmp_path: Path) -> None:
    first = prepare(folder(data), tmp_path / "cache")
    file = data / "good_00.wav"
    times = file.stat()
    file.write_bytes(encoded(waveform(1000)))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = prepare(folder(data), tmp_path / "cache")
    assert second.fingerprint != first.fingerprint
    assert not np.array_equal(second.splits["train"].input.waveform(0), first.splits["train"].input.waveform(0))


def test_bad_audio_is_remembered_and_the_policy_can_change(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "good_00.wav").write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        prepare(folder(data), tmp_path / "cache")
    no_decoding(monkeypatch, audio)
    with pytest.raises(DataError, match="0 bytes"):
        prepare(folder(data), tmp_path / "cache")
    corpus = prepare(AudioFolder(path=str(data), on_bad="drop"), tmp_path / "cache")
    assert sizes(corpus) == (7, 2, 2) and corpus.report.dropped == {"empty": 1}


def test_an_interrupted_run_leaves_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = audio.decode, []

    def interrupted(*arguments: Any, **options: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(audio, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder(data), tmp_path / "cache")
    assert list((tmp_path / "cache/audio").iterdir()) == []
    monkeypatch.setattr(audio, "decode", real)
    assert sizes(prepare(folder(data), tmp_path / "cache")) == (8, 2, 2)


@pytest.mark.parametrize("suffix", [".json", ".arrow"])
@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_cache_is_made_again(suffix: str, damage: bytes | None, data: Path, tmp_path: Path) -> None:
    first = prepare(folder(data), tmp_path / "cache")
    (file,) = (tmp_path / "cache/audio").glob(f"*{suffix}")
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    second = prepare(folder(data), tmp_path / "cache")
    assert second.fingerprint == first.fingerprint
    assert len(second.splits["train"].input.waveform(0)) == RATE


def test_a_cache_that_cannot_be_written_is_a_clear_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write .*TOOLKIT_CACHE"):
        prepare(folder(data), tmp_path / "cache")


def test_concurrent_runs_do_not_disturb_each_other(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.support.corpora import prepare;"
        "from toolkit.datasets.audio_folder import AudioFolder;"
        "c = prepare(AudioFolder(path=sys.argv[1]), Path(sys.argv[2]));"
        "print(c.fingerprint, sum(float(s.input.waveform(i).sum()) for s in c.splits.values() for i in range(len(s))))"
    )
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "cache")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {run.communicate(timeout=60)[0] for run in runs}
    assert len(said) == 1 and all(run.returncode == 0 for run in runs)
    assert len(list((tmp_path / "cache/audio").iterdir())) == 2
