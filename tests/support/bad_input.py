"""Folders of bad recordings: what ``dataset=audio_folder`` must refuse, each with pieces of the message that it must
give."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from tests.support import bad_data
from tests.support.bad_data import Case

RATE = 16_000  # Hz
# Eight to train, which hold every letter and the blank, two to validate, two to test; short enough for one second.
TEXTS = (
    *(
        "abcdefg hij",
        "klmnopq rst",
        "uvwxyz the fox",
        "quick brown",
        "jumps over",
        "lazy dogs",
        "wizards mix",
        "big brews",
    ),
    *("potent fox", "the dogs"),
    *("lazy wizards", "brown foxes"),
)


def waveform(seed: int, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """Noise, so that no two files are equal."""
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate)).clip(-1, 1).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def good_rows(folder: Path) -> list[dict[str, str]]:
    """Write a recording for each of TEXTS and return their metadata."""
    folder.mkdir(parents=True)
    rows = []
    for i, text in enumerate(TEXTS):
        (folder / f"good_{i:02}.wav").write_bytes(encoded(waveform(i)))
        split = "train" if i < 8 else "validation" if i < 10 else "test"
        rows.append({"file_name": f"good_{i:02}.wav", "transcription": text, "split": split})
    return rows


def write_csv(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _bad_file(data: bytes, name: str = "bad.wav", text: str = "fox", split: str = "train") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        rows = good_rows(folder)
        (folder / name).write_bytes(data)
        write_csv(folder, [*rows, {"file_name": name, "transcription": text, "split": split}])

    return make


def _bad_row(**fields: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        rows = good_rows(folder)
        write_csv(folder, [*rows, rows[-1] | fields])

    return make


def _raw_line(line: bytes, name: str = "metadata.csv") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        rows = good_rows(folder)
        if name == "metadata.csv":
            write_csv(folder, rows)
        else:
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / "extra.wav").write_bytes(encoded(waveform(99)))
        with (folder / name).open("ab") as stream:
            stream.write(line + b"\n")

    return make


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "a")
    return stream.getvalue()


def _changed(index: int, value: float) -> bytes:
    samples = waveform(50)
    samples[index] = value
    return encoded(samples, subtype="FLOAT")


def _audio_only(folder: Path) -> None:
    good_rows(folder)


def _both_metadata(folder: Path) -> None:
    write_csv(folder, good_rows(folder))
    (folder / "metadata.jsonl").write_text("{}\n")


def _wrong_columns(folder: Path) -> None:
    rows = good_rows(folder)
    write_csv(folder, [{"file": r["file_name"], "transcript": r["transcription"]} for r in rows])


def _duplicate_id(folder: Path) -> None:
    rows = good_rows(folder)
    (folder / "good_03.flac").write_bytes(encoded(waveform(60), kind="FLAC"))
    write_csv(folder, [*rows, rows[3] | {"file_name": "good_03.flac"}])


def _in_folders(folder: Path, names: dict[str, str]) -> None:
    rows = good_rows(folder / "all")
    for split, name in names.items():
        (folder / name).mkdir()
        chosen = [row for row in rows if row["split"] == split]
        for row in chosen:
            (folder / "all" / row["file_name"]).rename(folder / name / row["file_name"])
        write_csv(folder / name, chosen)
    for left in (folder / "all").iterdir():
        left.unlink()
    (folder / "all").rmdir()


def _misspelt_split(folder: Path) -> None:
    _in_folders(folder, {"train": "train", "validation": "validation", "test": "tset"})


def _contradicting_split(folder: Path) -> None:
    _in_folders(folder, {"train": "train", "validation": "dev", "test": "test"})
    file = folder / "train/metadata.csv"
    file.write_text(file.read_text().replace(",train", ",test", 1))


def _empty_test(folder: Path) -> None:
    _in_folders(folder, {"train": "train", "validation": "dev", "test": "test"})
    (folder / "test/metadata.csv").write_text("file_name,transcription\n")


def _pairs(folder: Path, unfinished: str) -> None:
    for row in good_rows(folder):
        if row["file_name"] != unfinished:
            (folder / row["file_name"]).with_suffix(".txt").write_text(row["transcription"] + "\n")


def _audio_without_text(folder: Path) -> None:
    _pairs(folder, "good_05.wav")


def _text_without_audio(folder: Path) -> None:
    _pairs(folder, "")
    (folder / "good_05.wav").unlink()


_WAV, _FLAC, _OGG = (encoded(waveform(70), kind=kind) for kind in ("WAV", "FLAC", "OGG"))
_MP3 = encoded(waveform(71), kind="MP3")
_SILENCE = encoded(np.zeros(RATE, np.float32))

# name -> maker of the folder, pieces of the message, whether dropping helps
_CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], bool]] = {
    "no such folder": (lambda folder: None, ("missing folder", "no such folder"), False),
    "a file as folder": (bad_data.a_file, ("not a folder", "found a file"), False),
    "empty folder": (lambda folder: folder.mkdir(), ("empty folder", "expected metadata.csv"), False),
    "no transcripts": (_audio_only, ("no transcripts", "good_00.wav", "NAME.txt"), False),
    "two metadata files": (_both_metadata, ("metadata.csv and metadata.jsonl",), False),
    "wrong columns": (_wrong_columns, ("metadata.csv, line 1", "found file, transcript", "'file_name'"), False),
    "too many fields": (_raw_line(b"extra.wav,fox, dog,train"), ("line 14", "4 fields, the header has 3"), True),
    "too few fields": (_raw_line(b"extra.wav"), ("line 14", "1 fields, the header has 3"), True),
    "unclosed quote": (_raw_line(b'extra.wav,"fox,train\nextra2.wav,a,train'), ("line 14", "not valid CSV"), False),
    "broken JSON": (
        _raw_line(b'{"file_name": ', "metadata.jsonl"),
        ("metadata.jsonl, line 13", "not valid JSON"),
        True,
    ),
    "JSON list": (_raw_line(b"[1]", "metadata.jsonl"), ("line 13", "found a JSON list"), True),
    "number as text": (
        _raw_line(b'{"file_name": "extra.wav", "transcription": 7}', "metadata.jsonl"),
        ("line 13", "7 (int), expected text"),
        True,
    ),
    "not UTF-8": (
        _raw_line("extra.wav,füchse,train".encode("latin-1")),
        ("line 14", "not UTF-8: byte 0xfc"),
        True,
    ),
    "control character": (_raw_line(b"extra.wav,fo\x00x,train"), ("control character", "U+0000"), True),
    "replacement character": (_raw_line("extra.wav,f\ufffdx,train".encode()), ("lost character", "U+FFFD"), True),
    "empty transcript": (_raw_line(b"extra.wav,  ,train"), ("extra.wav", "empty text"), True),
    "duplicate file": (_bad_row(), ("duplicate file", "metadata.csv, line 13", "line 14"), True),
    "duplicate id": (_duplicate_id, ("duplicate id", "'good_03'", "line 14"), True),
    "missing file": (_bad_row(file_name="good_03.mp3"), ("missing file", "did you mean 'good_03.wav'"), True),
    "no file name": (_bad_row(file_name=""), ("file_name is ''",), True),
    "outside the folder": (_bad_row(file_name="../good_03.wav"), ("outside the folder", "'../good_03.wav'"), True),
    "absolute path": (_bad_row(file_name="/etc/passwd"), ("outside the folder", "'/etc/passwd'"), True),
    "unknown split": (
        _bad_file(_WAV, split="tset"),
        ("unknown split", "found 'tset'", "did you mean 'test'"),
        True,
    ),
    "unknown split folder": (_misspelt_split, ("unknown split", "'tset'", "did you mean 'test'"), False),
    "contradicting split": (_contradicting_split, ("contradicting split", "train/metadata.csv, line 2"), True),
    "empty split": (_empty_test, ("test: empty split", "train 8"), False),
    "audio without text": (_audio_without_text, ("good_05.wav: missing transcript", "good_05.txt"), True),
    "text without audio": (_text_without_audio, ("good_05.txt: missing file",), True),
    "empty file": (_bad_file(b""), ("bad.wav", "empty", "0 bytes"), True),
    "no samples": (_bad_file(encoded(np.zeros(0, np.float32))), ("bad.wav", "empty", "0 samples"), True),
    "truncated WAV": (_bad_file(_WAV[: len(_WAV) // 2]), ("truncated", "the header promises 32,044 bytes"), True),
    "truncated FLAC": (_bad_file(_FLAC[: len(_FLAC) // 2], "bad.flac"), ("bad.flac", "truncated"), True),
    "truncated Ogg": (_bad_file(_OGG[: len(_OGG) // 2], "bad.ogg"), ("bad.ogg", "truncated"), True),
    "truncated MP3": (_bad_file(_MP3[: len(_MP3) // 2], "bad.mp3"), ("bad.mp3", "truncated"), True),
    "mislabelled audio": (_bad_file(_MP3), ("mislabelled", "holds MP3", "rename it to .mp3"), True),
    "text as audio": (_bad_file(b"<html>Not found</html>"), ("mislabelled", "holds text", "expected WAV"), True),
    "archive as audio": (_bad_file(_zip(), "bad.mp3"), ("mislabelled", "holds a ZIP archive"), True),
    "noise as audio": (_bad_file(bytes(range(128, 228))), ("unreadable", "begins with bytes 80 81 82 83"), True),
    "damaged header": (_bad_file(_FLAC[:4] + b"\x99" * 99, "bad.flac"), ("unreadable", "not a valid FLAC"), True),
    "not a number": (_bad_file(_changed(1600, np.nan)), ("not finite", "the first one at 0.100 s"), True),
    "infinite": (_bad_file(_changed(3200, np.inf)), ("not finite", "1 samples", "0.200 s"), True),
    "out of scale": (_bad_file(_changed(9, 12000.0)), ("out of scale", "the peak is 12000"), True),
    "silence": (_bad_file(_SILENCE), ("silent", "all 16,000 samples"), True),
    "absurd sample rate": (_bad_file(encoded(waveform(1), 100)), ("sample rate", "found 100 Hz"), True),
    "too long": (_bad_file(encoded(waveform(2, 61))), ("too long", "61.000 s", "dataset.max_seconds"), True),
    "too short": (_bad_file(encoded(waveform(3, 0.01))), ("too short", "0.010 s", "dataset.min_seconds"), True),
    "too short for CTC": (
        _bad_file(encoded(waveform(4, 0.3)), text="bookkeeping " * 12),
        ("too short for its transcript", "CTC needs", "repeats"),
        True,
    ),
}


def make(root: Path) -> Iterator[Case]:
    """Make a folder for every kind of bad input in ``root``, an existing empty folder."""
    return bad_data.make(root, _CASES)


def make_all_in_one(folder: Path) -> int:
    """Make one folder that has many bad recordings beside twelve good ones, and return how many."""
    rows = good_rows(folder)
    bad = {
        "empty.wav": b"",
        "cut.wav": _WAV[: len(_WAV) // 2],
        "half.flac": _FLAC[: len(_FLAC) // 2],
        "mp3.wav": _MP3,
        "page.wav": b"<html>",
        "nan.wav": _changed(5, np.nan),
        "silent.wav": _SILENCE,
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
        rows.append({"file_name": name, "transcription": "fox", "split": "train"})
    rows.append(rows[0])
    rows.append({"file_name": "gone.wav", "transcription": "fox", "split": "train"})
    write_csv(folder, rows)
    return len(bad) + 2
