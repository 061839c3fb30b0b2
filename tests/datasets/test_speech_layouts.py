"""Layouts of published speech corpora: read in one override, and one line where that is not possible."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.support.corpora import Silent, prepare, sizes
from tests.support.made import RATE, encoded, texts, tones
from toolkit.data.example import SPLITS, Example, File
from toolkit.data.problems import Problem
from toolkit.datasets.audio_folder import AudioFolder
from toolkit.errors import DataError

TEXTS = dict(zip(SPLITS, (texts(8)[:4], texts(8)[4:6], texts(8)[6:]), strict=True))
NAMES = {"train": "train", "validation": "dev", "test": "test"}


def examples(path: Path, **options: Any) -> tuple[list[Example], list[Problem]]:
    items = list(AudioFolder(path=str(path), **options).examples(path, Silent()))  # type: ignore[arg-type]
    return [i for i in items if isinstance(i, Example)], [i for i in items if isinstance(i, Problem)]


def problem(path: Path, **options: Any) -> Problem:
    (only,) = examples(path, **options)[1]
    return only


def write(path: Path, text: str = "a", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tones(text, seed), RATE, subtype="PCM_16")
    return path


def put(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def librispeech(root: Path) -> None:
    for split, name in (("train", "train-clean-100"), ("validation", "dev-clean"), ("test", "test-clean")):
        folder = root / "LibriSpeech" / name / "19/198"
        lines = [f"19-198-{i:04} {text.upper()}" for i, text in enumerate(TEXTS[split])]
        put(folder / "19-198.trans.txt", *lines)
        for i, text in enumerate(TEXTS[split]):
            write(folder / f"19-198-{i:04}.flac", text)
    put(root / "LibriSpeech/README.TXT", "This is LibriSpeech")


def common_voice(root: Path) -> None:
    for split, name in NAMES.items():
        rows = [f'x\t{split}_{i}.mp3\t"{text}\t2' for i, text in enumerate(TEXTS[split])]
        put(root / f"{name}.tsv", "client_id\tpath\tsentence\tup_votes", *rows)
        for i, text in enumerate(TEXTS[split]):
            path = root / "clips" / f"{split}_{i}.mp3"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, tones(text), RATE, format="MP3")
    for name in ("validated", "invalidated", "other"):
        put(root / f"{name}.tsv", "client_id\tpath\tsentence\tup_votes", "x\tgone.mp3\ta\t0")
    put(root / "times.txt", "a")


def ljspeech(root: Path) -> None:
    lines = [f'LJ-{i}|Mr. "{i}|{text}' for i, text in enumerate(texts(8))]
    put(root / "LJSpeech-1.1/metadata.csv", *lines)
    for i, text in enumerate(texts(8)):
        write(root / f"LJSpeech-1.1/wavs/LJ-{i}.wav", text)
    put(root / "LJSpeech-1.1/README", "a")


def kaldi(root: Path) -> None:
    for split, name in NAMES.items():
        put(root / "data" / name / "text", *(f"utt{i} {text}" for i, text in enumerate(TEXTS[split])))
        put(root / "data" / name / "utt2spk", *(f"utt{i} spk" for i, _ in enumerate(TEXTS[split])))
        put(root / "data" / name / "wav.scp", *(f"utt{i} audio/{split}{i}.wav" for i, _ in enumerate(TEXTS[split])))
        for i, text in enumerate(TEXTS[split]):
            write(root / "audio" / f"{split}{i}.wav", text)
    (root / "data/lang").mkdir()


def nemo(root: Path) -> None:
    for split, name in NAMES.items():
        rows = []
        for i, text in enumerate(TEXTS[split]):
            path = write(root / "audio" / f"{split}{i}.wav", text)
            rows.append({"audio_filepath": str(path if i else f"audio/{path.name}"), "duration": 1.0, "text": text})
        put(root / f"{name}_manifest.json", *map(json.dumps, rows))
    put(root / "config.json", "{", '"a": 1', "}")


def table(delimiter: str, name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        rows = [(f"{s}{i}.wav", text, s) for s in SPLITS for i, text in enumerate(TEXTS[s])]
        put(root / name, *(delimiter.join(row) for row in [("file_name", "text", "split"), *rows]))
        for file, text, _ in rows:
            write(root / file, text)

    return make


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "LibriSpeech": librispeech,
    "Common Voice": common_voice,
    "Kaldi": kaldi,
    "NeMo": nemo,
    "semicolons": table(";", "metadata.csv"),
    "tabs": table("\t", "metadata.tsv"),
    "tabs in CSV": table("\t", "metadata.csv"),
}


def noise(root: Path) -> None:
    """Write what lies beside data."""
    for name in (".git/a.txt", ".git/a.wav", ".cache/b.json", "README.txt", "LICENSE", "README.md"):
        put(root / name, "a")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_in_one_override(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "data")
    noise(tmp_path / "data")
    corpus = prepare(AudioFolder(path=str(tmp_path / "data")), tmp_path / "cache")  # type: ignore[call-arg]
    assert sizes(corpus) == (4, 2, 2)
    endings = {"LibriSpeech": str.upper, "Common Voice": lambda text: f'"{text}'}
    expected = [endings.get(layout, str)(text) for text in TEXTS["train"]]
    assert list(corpus.splits["train"].references) == expected


def test_ljspeech_takes_the_normalized_transcript(tmp_path: Path) -> None:
    ljspeech(tmp_path)
    found, problems = examples(tmp_path, validation_fraction=0.2, test_fraction=0.2)
    assert not problems and [example.values["text"] for example in found] == texts(8)
    assert found[0].id == "LJSpeech-1.1/wavs/LJ-0" and len({example.split for example in found}) == 3


def test_a_transcript_of_ljspeech_may_have_more_commas_than_bars(tmp_path: Path) -> None:
    put(tmp_path / "metadata.csv", *(f"LJ-{i}|a, b, c, {text}|a, b, c, {text}" for i, text in enumerate(texts(8))))
    for i, text in enumerate(texts(8)):
        write(tmp_path / f"wavs/LJ-{i}.wav", text)
    found, problems = examples(tmp_path)
    assert (len(found), problems) == (8, [])


@pytest.mark.parametrize("header", ["", "audio_file|text|speaker_name"])
def test_a_third_column_may_be_a_speaker(header: str, tmp_path: Path) -> None:
    rows = [f"wavs/{i}.wav|{text}|{'ab'[i % 2]}" for i, text in enumerate(texts(8))]
    put(tmp_path / "metadata.csv", *([header] if header else []), *rows)
    for i, text in enumerate(texts(8)):
        write(tmp_path / f"wavs/{i}.wav", text)
    found, problems = examples(tmp_path)
    assert problems == [] and {example.values["text"] for example in found} == set(texts(8))


def test_the_last_name_of_a_path_alone_stands_for_no_file(tmp_path: Path) -> None:
    write(tmp_path / "001.wav")
    put(tmp_path / "wav.scp", "u1 /old/spk1/001.wav", "u2 /old/spk2/001.wav")
    put(tmp_path / "text", "u1 HELLO", "u2 WORLD")
    found, problems = examples(tmp_path)
    assert found == [] and [one.kind for one in problems[:2]] == ["missing file"] * 2


def test_a_path_of_another_machine_stands_for_the_file_inside(tmp_path: Path) -> None:
    kaldi(tmp_path)
    for file in (tmp_path / "data").glob("*/wav.scp"):
        file.write_text(file.read_text().replace("audio/", "/home/somebody/corpus/audio/"))
    found, problems = examples(tmp_path)
    assert (len(found), problems) == (8, [])
    (tmp_path / "audio/train0.wav").unlink()
    assert problem(tmp_path).message.startswith("found no file '/home/somebody/corpus/audio/train0.wav'")


def test_the_folder_above_librispeech_and_the_folder_itself_are_the_same(tmp_path: Path) -> None:
    librispeech(tmp_path)
    above, inside = examples(tmp_path)[0], examples(tmp_path / "LibriSpeech")[0]
    assert [(e.split, e.values) for e in above] == [(e.split, e.values) for e in inside]
    (one, two), problems = examples(tmp_path / "LibriSpeech/test-clean", validation_fraction=0.0, test_fraction=0.0)
    assert one.split == two.split == "train" and not problems


def test_several_sets_are_joined_for_training_and_chosen_for_evaluation(tmp_path: Path) -> None:
    librispeech(tmp_path)
    for name in ("train-other-500", "dev-other", "test-other"):
        put(tmp_path / "LibriSpeech" / name / "7.trans.txt", f"{name} A")
        write(tmp_path / "LibriSpeech" / name / f"{name}.flac")
    _, problems = examples(tmp_path)
    assert [str(p) for p in problems] == [
        f"{split}: ambiguous split: found {name}-clean, {name}-other, expected one of them; choose it by "
        f"dataset.{split}={name}-clean"
        for split, name in (("validation", "dev"), ("test", "test"))
    ]
    found, problems = examples(tmp_path, validation="dev-other", test="test-clean")
    assert not problems and [sum(e.split == split for e in found) for split in SPLITS] == [5, 1, 2]
    _, problems = examples(tmp_path, validation="dev-clean", test="test-cleen")
    assert "found test-clean, test-other, expected test-cleen (dataset.test)" in str(problems[0])


def test_a_recording_without_a_line_and_a_line_without_recording_are_problems(tmp_path: Path) -> None:
    put(tmp_path / "a.trans.txt", "one A", "two B")
    write(tmp_path / "one.flac")
    write(tmp_path / "three.flac")
    found, problems = examples(tmp_path, validation_fraction=0.0, test_fraction=0.0)
    assert len(found) == 1
    assert [str(p) for p in problems] == [
        "a.trans.txt, line 2: missing file: found no audio file two.* beside it, or a second line",
        "three.flac: missing transcript: found no line for it in a.trans.txt",
    ]


def content(example: Example) -> bytes:
    file = example.values["audio"]
    assert isinstance(file, File) and callable(file.content) and file.stamp
    read = file.content()
    assert isinstance(read, bytes)
    return read


def pieces_of_kaldi(root: Path) -> None:
    put(root / "wav.scp", "rec long.flac")
    put(root / "segments", "u1 rec 0.12 0.36", "u2 rec 0.36 -1", "u3 rec 0.0 0.5")
    put(root / "text", "u1 bc", "u2 d", "u3 abcd")


def pieces_of_nemo(root: Path) -> None:
    times = ((0.12, 0.24, "bc"), (0.36, None, "d"), (0, 0.5, "abcd"))
    rows = [{"audio_filepath": "long.flac", "offset": o, "duration": d, "text": t} for o, d, t in times]
    put(root / "manifest.json", *map(json.dumps, rows))


@pytest.mark.parametrize("make", [pieces_of_kaldi, pieces_of_nemo])
def test_pieces_of_a_recording_are_utterances(make: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "long.flac", "abcd")
    make(tmp_path)
    samples = soundfile.read(tmp_path / "long.flac", dtype="float32", always_2d=True)[0]
    found, problems = examples(tmp_path, validation_fraction=0.0, test_fraction=0.0)
    assert not problems and len({e.values["audio"].stamp for e in found}) == 3  # type: ignore[attr-defined]
    for example, (start, end) in zip(found, ((1920, 5760), (5760, 7680), (0, 7680)), strict=True):
        (tmp_path / "piece.wav").write_bytes(content(example))
        piece, rate = soundfile.read(tmp_path / "piece.wav", dtype="float32", always_2d=True)
        assert rate == RATE
        np.testing.assert_array_equal(piece, samples[start:end])
    assert content(found[0]) == content(found[0]) != content(found[1])
    corpus = prepare(
        AudioFolder(path=str(tmp_path), validation_fraction=0.3, test_fraction=0.3),  # type: ignore[call-arg]
        tmp_path / "cache",
    )
    assert sizes(corpus) == (1, 1, 1)


@pytest.mark.parametrize("kind", ["wav", "m4a"])
def test_a_piece_outside_its_recording_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"long.{kind}"
    write(tmp_path / "long.wav", "abcd")
    if kind == "m4a":
        path.write_bytes(b"no audio")
    pieces_of_kaldi(tmp_path)
    put(tmp_path / "wav.scp", f"rec {path.name}")
    put(tmp_path / "segments", "u1 rec 0.1 0.2", "u2 rec 0.3 1.5")
    put(tmp_path / "text", "u1 a", "u2 b")
    with pytest.raises(DataError) as caught:
        prepare(AudioFolder(path=str(tmp_path)), tmp_path / "cache")  # type: ignore[call-arg]
    said = {
        "wav": "long.wav, 0.3 to 1.5 s): outside the recording: found 0.300 to 1.500 s, expected a part of its 0.480"
    }
    assert said.get(kind, "long.m4a, 0.1 to 0.2 s): ") in "\n".join(caught.value.problems)


def test_commands_of_kaldi_are_never_run(tmp_path: Path) -> None:
    put(tmp_path / "wav.scp", f"u1 touch {tmp_path}/run; cat a.flac |", "u2 foo.ark:17", "u3 /gone/a.wav")
    put(tmp_path / "text", "u1 a", "u2 b", "u3 c", "u4 d")
    _, problems = examples(tmp_path)
    assert not (tmp_path / "run").exists()
    kinds = [("command", "never run; name a.flac itself, or its output"), ("archive", "wav-copy")]
    kinds += [("missing file", "found no file '/gone/a.wav'"), ("missing file", "found no 'u4' in wav.scp")]
    for problem, (kind, said) in zip(problems, kinds, strict=True):
        assert problem.kind == kind and said in problem.message and not problem.fatal


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"audio_filepath": "a.wav"}, "wrong type: found audio_filepath, expected a text in text"),
        ({"audio_filepath": 1, "text": "a"}, "wrong type: found audio_filepath is 1, expected"),
        ({"audio_filepath": "a.wav", "text": "a", "offset": "1"}, "offset is '1', expected seconds"),
        ({"audio_filepath": "b.wav", "text": "a"}, "found no file 'b.wav'"),
    ],
)
def test_a_bad_line_of_a_manifest_is_named(row: dict[str, object], said: str, tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    put(tmp_path / "manifest.json", json.dumps(row))
    found = problem(tmp_path)
    assert found.where == "manifest.json, line 1" and said in str(found)


def test_lists_whose_names_have_no_split_are_named(tmp_path: Path) -> None:
    nemo(tmp_path)
    (tmp_path / "test_manifest.json").rename(tmp_path / "tset.json")
    (bad,) = examples(tmp_path)[1]
    assert "unknown split: found 'tset', expected train, validation, test in its name; did you mean 'test'?" in str(bad)
    assert bad.fatal


@pytest.mark.parametrize("listed", ["NFC", "NFD"])
@pytest.mark.parametrize("layout", ["metadata", "pairs", "LibriSpeech"])
def test_the_unicode_form_of_a_name_does_not_matter(layout: str, listed: Any, tmp_path: Path) -> None:
    stored: Any = "NFD" if listed == "NFC" else "NFC"
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    here, there = unicodedata.normalize(listed, name), unicodedata.normalize(stored, name)
    write(tmp_path / there / f"{there}.wav")
    if layout == "metadata":
        put(tmp_path / "metadata.csv", "file_name,text", f"{here}/{here}.wav,a")
    else:
        put(tmp_path / there / (f"{here}.txt" if layout == "pairs" else "a.trans.txt"), f"{here} a")
    found, problems = examples(tmp_path, validation_fraction=0.0, test_fraction=0.0)
    assert not problems and len(found) == 1


def test_files_that_cannot_be_read_have_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "link.wav").symlink_to("gone.wav")
    (tmp_path / "folder.wav").mkdir()
    names = ("link.wav", "folder.wav", "x" * 300 + ".wav", "sub/none.wav")
    put(tmp_path / "metadata.csv", "file_name,text", *(f"{name},a" for name in names))
    _, problems = examples(tmp_path)
    said = ("is a link to 'gone.wav', which does not exist", "is not a file", "has 304 characters", "found no file")
    assert len(problems) == 4 and all(part in p.message for part, p in zip(said, problems, strict=True))


def test_names_that_are_not_utf8_and_dangling_links_have_one_line_each_beside_their_texts(tmp_path: Path) -> None:
    for stem in (b"caf\xe9", b"good", b"link"):
        (tmp_path / "x.wav").write_bytes(encoded(tones("a"), RATE))
        (tmp_path / "x.wav").rename(tmp_path / (stem + b".wav").decode("utf-8", "surrogateescape"))
        (tmp_path / (stem + b".txt").decode("utf-8", "surrogateescape")).write_text("a")
    (tmp_path / "link.wav").unlink()
    (tmp_path / "link.wav").symlink_to("gone.wav")
    found, problems = examples(tmp_path, validation_fraction=0.0, test_fraction=0.0)
    assert [example.id for example in found] == ["good"]
    assert [str(p).encode() for p in problems] == [
        rb"'caf\udce9.wav': bad name: found 'caf\udce9.wav', expected a name in UTF-8 without control characters",
        b"link.wav: missing file: it is a link to 'gone.wav', which does not exist",
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("a.wav", "b.wav"), "found a.wav, b.wav (2 .wav); the nearest known layout is metadata: "),
        (("a.wav",), "lines such as 'file_name,transcription' and 'a.wav,the words of this recording'"),
        (("wav.scp", "a.wav"), "is a data folder of Kaldi: wav.scp (UTTERANCE FILE) and text (UTTERANCE TRANSCRIPT)"),
        (("clips/a.mp3",), "is Common Voice: train.tsv, dev.tsv and test.tsv"),
        (("clips/a.mp3",), r"'path\tsentence' and 'clips/a.mp3\tThe words of this recording.'"),
        (("wavs/a.wav",), "is LJSpeech: metadata.csv with | and without a header"),
        (("all.json", "a.wav"), """'{"audio_filepath": "a.wav", "text": "the words of this recording"}' and"""),
        (("train-0.tar",), "shards are read by dataset=audio_shards"),
        (("corpus.zip",), "unpack the .zip files first"),
        ((".git/a.wav", "README.txt"), "found no file; the nearest known layout is metadata"),
    ],
)
def test_an_unknown_layout_is_named_with_the_nearest(files: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for name in files:
        put(tmp_path / name, "a")
    found = problem(tmp_path)
    assert found.fatal and found.where == f"dataset.path={tmp_path}" and said in found.message
    assert "\n" not in str(found)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "wav.scp"])
def test_a_list_in_utf16_is_refused_by_name(name: str, tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    lists = {"metadata.csv": "file_name,text\na.wav,a\n", "wav.scp": "u a.wav\n"}
    (tmp_path / name).write_text(lists.get(name, '{"file_name": "a.wav", "text": "a"}\n'), encoding="utf-16")
    put(tmp_path / "text", "u a")
    assert any("the byte-order mark of UTF-16" in str(p) and p.fatal for p in examples(tmp_path)[1])


def test_a_split_folder_inside_the_only_folder_is_read(tmp_path: Path) -> None:
    for name in NAMES.values():
        write(tmp_path / "corpus" / name / "a.wav")
        put(tmp_path / "corpus" / name / "metadata.csv", "file_name,text", "a.wav,a")
    (tmp_path / "lost+found").mkdir()
    found, problems = examples(tmp_path)
    assert not problems and [example.split for example in found] == list(SPLITS)


def test_several_corpora_in_a_folder_are_named(tmp_path: Path) -> None:
    ljspeech(tmp_path / "a")
    ljspeech(tmp_path / "b")
    (tmp_path / "a/LJSpeech-1.1").rename(tmp_path / "one")
    (tmp_path / "b/LJSpeech-1.1").rename(tmp_path / "two")
    assert "found several corpora, one, two; set dataset.path to the folder of one" in problem(tmp_path).message
