"""Datasets: where recordings come from, how they are split, and the cache of decoded audio."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toolkit.data.corpus import SPLITS, Corpus, Problem, cache_folder
from toolkit.data.speech import Recording

from tests.support.bad_input import RATE, encoded, good_rows, waveform, write_csv
from toolkit.data import speech
from toolkit.data.media import audio
from toolkit.data.sources import fetch
from toolkit.datasets import asterisk, audio_folder, fsdd, hub
from toolkit.datasets.audio_folder import AudioFolder
from toolkit.errors import DataError, RunError


class Silent:
    """Stands for rich's progress."""

    def add_task(self, *_: Any, **__: Any) -> int:
        return 0

    update = advance = add_task


def sizes(corpus: Corpus) -> tuple[int, ...]:
    return tuple(len(split) for split in corpus.splits.values())


def folder(path: Path) -> AudioFolder:
    return AudioFolder(path=str(path))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = good_rows(tmp_path / "data")
    write_csv(tmp_path / "data", rows)
    return tmp_path / "data"


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded although it is in the cache")

    monkeypatch.setattr(audio, "decode", refuse)


# ---- the cache


def test_waveforms_are_views_of_the_mapped_file(data: Path, tmp_path: Path) -> None:
    corpus = speech.prepare(folder(data), tmp_path / "cache")
    split = corpus.splits["train"]
    for i, name in enumerate(split.ids):
        wave = split.waveform(i)
        expected = audio.decode((data / f"{name}.wav").read_bytes(), "a.wav", RATE)
        np.testing.assert_array_equal(wave, expected)
        assert wave.dtype == np.float32 and not wave.flags.owndata and not wave.flags.writeable
        assert len(wave) == split.lengths[i]
    again = pickle.loads(pickle.dumps(split))  # as a loader's worker process gets it
    np.testing.assert_array_equal(again.waveform(3), split.waveform(3))


def test_many_record_batches(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = speech.prepare(folder(data), tmp_path / "cache")
    monkeypatch.setattr("toolkit.data.cache.BATCH_BYTES", 4 * (2 * RATE + 1))
    parts = speech.prepare(folder(data), tmp_path / "other")
    for name, split in whole.splits.items():
        for i in range(len(split)):
            np.testing.assert_array_equal(parts.splits[name].waveform(i), split.waveform(i))


def test_a_second_run_decodes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = speech.prepare(folder(data), tmp_path / "cache")
    no_decoding(monkeypatch)
    second = speech.prepare(folder(data), tmp_path / "cache")
    assert second.fingerprint == first.fingerprint and sizes(second) == sizes(first) == (8, 2, 2)


def test_a_new_transcript_is_another_corpus_but_decodes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = speech.prepare(folder(data), tmp_path / "cache")
    no_decoding(monkeypatch)
    text = (data / "metadata.csv").read_text()
    (data / "metadata.csv").write_text(text.replace("lazy dogs", "lazy hogs"))
    assert speech.prepare(folder(data), tmp_path / "cache").fingerprint != first.fingerprint


def test_changed_audio_is_seen_even_with_the_old_size_and_time(data: Path, tmp_path: Path) -> None:
    first = speech.prepare(folder(data), tmp_path / "cache")
    file = data / "good_00.wav"
    times = file.stat()
    file.write_bytes(encoded(waveform(1000)))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = speech.prepare(folder(data), tmp_path / "cache")
    assert second.fingerprint != first.fingerprint
    assert not np.array_equal(second.splits["train"].waveform(0), first.splits["train"].waveform(0))


def test_the_fingerprint_knows_ids_texts_splits_audio_and_rate(data: Path, tmp_path: Path) -> None:
    def fingerprint(change: tuple[str, str] = ("", ""), **fields: Any) -> str:
        text = (data / "metadata.csv").read_text()
        (data / "metadata.csv").write_text(text.replace(*change, 1) if change[0] else text)
        try:
            corpus = speech.prepare(AudioFolder(path=str(data), **fields), tmp_path / "cache")
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


def test_bad_audio_is_remembered_and_the_policy_can_change(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "good_00.wav").write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        speech.prepare(folder(data), tmp_path / "cache")
    no_decoding(monkeypatch)
    with pytest.raises(DataError, match="0 bytes"):
        speech.prepare(folder(data), tmp_path / "cache")
    corpus = speech.prepare(AudioFolder(path=str(data), on_bad="drop"), tmp_path / "cache")
    assert sizes(corpus) == (7, 2, 2) and corpus.report.dropped == {"empty": 1}


def test_an_interrupted_run_leaves_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = audio.decode, []

    def interrupted(*arguments: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(audio, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        speech.prepare(folder(data), tmp_path / "cache")
    assert list((tmp_path / "cache/audio").iterdir()) == []
    monkeypatch.setattr(audio, "decode", real)
    assert sizes(speech.prepare(folder(data), tmp_path / "cache")) == (8, 2, 2)


@pytest.mark.parametrize("suffix", [".json", ".arrow"])
@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_cache_is_made_again(suffix: str, damage: bytes | None, data: Path, tmp_path: Path) -> None:
    first = speech.prepare(folder(data), tmp_path / "cache")
    (file,) = (tmp_path / "cache/audio").glob(f"*{suffix}")
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    second = speech.prepare(folder(data), tmp_path / "cache")
    assert second.fingerprint == first.fingerprint
    assert len(second.splits["train"].waveform(0)) == RATE


def test_concurrent_runs_do_not_disturb_each_other(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from toolkit import speech;"
        "from toolkit.datasets.audio_folder import AudioFolder;"
        "c = speech.prepare(AudioFolder(path=sys.argv[1]), Path(sys.argv[2]));"
        "print(c.fingerprint, sum(float(s.waveform(i).sum()) for s in c.splits.values() for i in range(len(s))))"
    )
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "cache")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {run.communicate(timeout=60)[0] for run in runs}
    assert len(said) == 1 and all(run.returncode == 0 for run in runs)
    assert len(list((tmp_path / "cache/audio").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_a_clear_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write .*TOOLKIT_CACHE"):
        speech.prepare(folder(data), tmp_path / "cache")


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TOOLKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "toolkit"
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


# ---- audio_folder


def write_layout(path: Path, layout: str) -> None:
    rows = good_rows(path)
    names = {"train": "train", "validation": "dev", "test": "Test"}
    if layout == "root csv":
        write_csv(path, rows)
    elif layout == "root jsonl":
        lines = [
            json.dumps({"file_name": r["file_name"], "text": r["transcription"], "split": r["split"]}) for r in rows
        ]
        (path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    elif layout == "csv with byte order mark":
        text = "".join(f'{r["file_name"]},"{r["transcription"]}",{names[r["split"]]}\r\n' for r in rows)
        (path / "metadata.csv").write_bytes(f"file_name,sentence,split\r\n{text}".encode("utf-8-sig"))
    else:
        for row in rows:
            target = path / names[row["split"]] / "speaker"
            target.mkdir(parents=True, exist_ok=True)
            (path / row["file_name"]).rename(target / row["file_name"])
            (target / row["file_name"]).with_suffix(".txt").write_text(row["transcription"] + "\n")
            row["file_name"] = f"speaker/{row['file_name']}"
        if layout == "folders with csv":
            for split, name in names.items():
                write_csv(path / name, [row for row in rows if row["split"] == split])


@pytest.mark.parametrize(
    "layout", ["root csv", "root jsonl", "csv with byte order mark", "folders with csv", "folders with pairs"]
)
def test_layouts(layout: str, tmp_path: Path) -> None:
    write_layout(tmp_path / "data", layout)
    corpus = speech.prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert sizes(corpus) == (8, 2, 2)
    assert corpus.splits["train"].texts[0] == "abcdefg hij" and corpus.splits["test"].texts[1] == "brown foxes"


def test_pairs_without_splits_are_cut(tmp_path: Path) -> None:
    for row in good_rows(tmp_path / "data"):
        (tmp_path / "data" / row["file_name"]).with_suffix(".txt").write_text(row["transcription"])
    corpus = speech.prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert sizes(corpus) == (10, 1, 1)


def test_a_missing_validation_split_is_cut_from_train_alone(tmp_path: Path) -> None:
    rows = [row for row in good_rows(tmp_path / "data") if row["split"] != "validation"]
    write_csv(tmp_path / "data", rows)
    corpus = speech.prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert sizes(corpus) == (7, 1, 2)
    assert corpus.splits["test"].ids == ["good_10", "good_11"]


def test_texts_are_normalised_to_nfc_and_single_blanks(tmp_path: Path) -> None:
    rows = good_rows(tmp_path / "data")
    rows[0]["transcription"] = " cafe\N{COMBINING ACUTE ACCENT}  au\tlait\n"
    write_csv(tmp_path / "data", rows)
    corpus = speech.prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert corpus.splits["train"].texts[0] == "caf\N{LATIN SMALL LETTER E WITH ACUTE} au lait"


def records(texts: list[str]) -> list[Recording]:
    return [Recording(f"r{i}", "train", text, b"", f"line {i}") for i, text in enumerate(texts)]


def cut(texts: list[str], seed: int = 0, disjoint: bool = True) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for item in audio_folder.cut(records(texts), 0.1, 0.2, seed, disjoint):
        assert isinstance(item, Recording), item
        found[item.split].append(item.text)
    return found


def test_no_transcript_is_cut_into_two_splits() -> None:
    texts = [f"text {i % 60}" for i in range(100)]
    splits = cut(texts)
    assert [len(splits[name]) for name in SPLITS] == [70, 10, 20]
    assert not set(splits["train"]) & set(splits["test"]) and not set(splits["train"]) & set(splits["validation"])
    assert not set(splits["validation"]) & set(splits["test"])
    assert cut(texts[::-1])["test"] == splits["test"][::-1]
    assert cut(texts, seed=1)["test"] != splits["test"]


def test_isolated_words_are_refused_or_cut_by_recording() -> None:
    words = ["yes"] * 50 + ["no"] * 50
    problems = [item for item in audio_folder.cut(records(words), 0.1, 0.2, 0, True) if isinstance(item, Problem)]
    assert [problem.where for problem in problems] == ["test", "validation"] and problems[0].fatal
    assert "dataset.disjoint=false" in problems[0].message
    splits = cut(words, disjoint=False)
    assert [len(splits[name]) for name in SPLITS] == [70, 10, 20]
    assert all(set(texts) == {"yes", "no"} for texts in splits.values())


def test_the_spec_says_that_the_path_is_missing() -> None:
    assert [field for field, _ in AudioFolder().check()] == ["path"]
    assert [f for f, _ in AudioFolder(path="a", test_fraction=0.5, validation_fraction=0.5).check()] == [
        "test_fraction"
    ]


# ---- asterisk

COUNTS = {"en": (431, 46, 66), "es": (397, 23, 43), "fr": (418, 27, 51)}
LETTERS = {"en": "", "es": "", "fr": "àâçèéêëîïôùûœ"}


@pytest.mark.parametrize("language", COUNTS)
def test_the_tables_keep_their_promises(language: str) -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    rows = asterisk.table(language)
    for row in rows:
        texts[row["split"]].add(row["transcription"])
        assert row["transcription"] == speech.clean(row["transcription"]).lower()
    assert tuple(sum(row["split"] == name for row in rows) for name in SPLITS) == COUNTS[language]
    assert len({row["name"] for row in rows}) == len(rows)
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    words = {word for text in texts["train"] for word in text.split()}
    for text in texts["validation"] | texts["test"]:
        assert set(text.split()) <= words and len(text.split()) >= 2, text
    characters = {c for split in texts.values() for text in split for c in text}
    assert characters <= set("abcdefghijklmnopqrstuvwxyz '" + LETTERS[language])


def debian_package(path: Path, files: dict[str, bytes]) -> Path:
    """A package as dpkg-deb makes it: an ar archive with the files in data.tar.xz (deb(5))."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(b"!<arch>\n")
    with path.open("ab") as out:
        for name, content in (("debian-binary", b"2.0"), ("control.tar.xz", b"?"), ("data.tar.xz", stream.getvalue())):
            out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content)
            out.write(b"\n" * (len(content) % 2))
    return path


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Three prompts instead of 543, as packages of a stand-in for Debian; returns the count of downloads."""
    import gzip

    rows = [
        {"name": "digits/1", "split": "train", "transcription": "one", "raw_transcription": "one"},
        {"name": "hello", "split": "test", "transcription": "hello you", "raw_transcription": "Hello, you."},
        {"name": "bye", "split": "validation", "transcription": "bye you", "raw_transcription": "Bye you"},
    ]
    sounds = {
        f"./usr/share/asterisk/sounds/en_US_f_A/{r['name']}.g722": bytes(range(256)) * (40 + i)
        for i, r in enumerate(rows)
    }
    sounds["./usr/share/asterisk/sounds/en_US_f_A/beep.g722"] = bytes(9000)
    text = "; the prompts\n\nhello: Hello,  you.\nbye:Bye you\ndigits/1: one\nbeep: [a beep]\n"
    count = {"downloads": 0}

    def download(packages: list[str], target: Path, progress: Any) -> list[Path]:
        count["downloads"] += 1
        texts = {"./usr/share/doc/x/core-sounds-en.txt.gz": gzip.compress(text.encode()), "./usr/share/doc/x/y": b"z"}
        contents = (sounds, texts)
        return [debian_package(target / f"{p}_1_all.deb", c) for p, c in zip(packages, contents, strict=True)]

    monkeypatch.setattr(asterisk, "table", lambda language: rows)
    monkeypatch.setattr(fetch, "debian_packages", download)
    expected = tmp_path / "expected"
    for name, content in sounds.items():
        file = expected / name.partition("en_US_f_A/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (expected / "core-sounds-en.txt").write_text(text)
    files = [expected / f"{r['name']}.g722" for r in rows] + [expected / "core-sounds-en.txt"]
    monkeypatch.setitem(asterisk.CHECKSUMS, "en", fetch.checksum(files))
    return count


def test_prompts_are_fetched_once_and_split_by_the_table(prompts: dict[str, int], tmp_path: Path) -> None:
    for _ in range(2):
        corpus = speech.prepare(asterisk.Asterisk(), tmp_path / "cache")
        assert {name: (s.ids, s.texts) for name, s in corpus.splits.items()} == {
            "train": (["digits/1"], ["one"]),
            "validation": (["bye"], ["bye you"]),
            "test": (["hello"], ["hello you"]),
        }
    assert prompts["downloads"] == 1
    assert len(corpus.splits["train"].waveform(0)) == 2 * 256 * 40  # G.722: two samples a byte
    (unpacked,) = (tmp_path / "cache/downloads").iterdir()
    assert not list(unpacked.glob("**/*.deb")) and not (unpacked / "y").exists()


def test_unpacked_prompts_can_be_given(prompts: dict[str, int], tmp_path: Path) -> None:
    corpus = speech.prepare(asterisk.Asterisk(path=str(tmp_path / "expected")), tmp_path / "cache")
    assert sizes(corpus) == (1, 1, 1) and prompts["downloads"] == 0


def test_another_version_of_the_prompts_is_refused(
    prompts: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = asterisk.CHECKSUMS["en"]
    monkeypatch.setitem(asterisk.CHECKSUMS, "en", "0" * 64)
    with pytest.raises(
        DataError, match=rf"core-sounds-en_1_all.deb: .* is {right}, expected 0{{64}} \(version 1.6.1\)"
    ):
        speech.prepare(asterisk.Asterisk(), tmp_path / "cache")
    assert list((tmp_path / "cache/downloads").iterdir()) == []
    (tmp_path / "expected/core-sounds-en.txt").write_text("hello: Hi\nbye: Bye you\n")
    with pytest.raises(DataError) as caught:
        speech.prepare(asterisk.Asterisk(path=str(tmp_path / "expected")), tmp_path / "cache")
    assert "the source's text is 'Hi', expected 'Hello, you.'" in str(caught.value)
    assert "the source's text is None, expected 'one'" in str(caught.value)


def test_without_any_source_both_ways_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    def unreachable(address: str, *_: Any, **__: Any) -> Any:
        raise fetch.urllib.error.URLError("no route to host")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", unreachable)
    with pytest.raises(DataError) as caught:
        speech.prepare(asterisk.Asterisk(language="fr"), tmp_path / "cache")
    message = str(caught.value)
    assert "apt-get is not on this machine" in message and "dataset.path=FOLDER" in message
    assert "releases/asterisk-core-sounds-fr-g722-1.6.1.tar.gz: no route to host" in message


def test_empty_package_lists_are_fetched_without_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for apt-get that knows packages only after an update into lists of one's own."""
    script = tmp_path / "bin/apt-get"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\nlists=/nowhere\n"
        'for word in "$@"; do case $word in Dir::State::lists=*) lists=${word#*=};; esac; done\n'
        'case " $* " in\n*" update "*) touch "$lists/known";;\n'
        '*) [ -f "$lists/known" ] || { echo "E: Unable to locate package" >&2; exit 100; }\n'
        "touch a_1_all.deb b_1_all.deb;;\n"
        "esac\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    target = tmp_path / "target"
    target.mkdir()
    assert [file.name for file in fetch.debian_packages(["a", "b"], target, Silent())] == ["a_1_all.deb", "b_1_all.deb"]
    with pytest.raises(fetch.FetchError, match="could not download c"):
        fetch.debian_packages(["c"], target, Silent())


# ---- archives


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../a.g722"),
        member("/tmp/a.g722"),
        member("sounds/v/../../a.g722"),
        member("a.g722", tarfile.SYMTYPE, "/etc/passwd"),
        member("deep/a.g722", tarfile.SYMTYPE, "../../secret"),
        member("a.g722", tarfile.LNKTYPE, "../secret"),
    ],
    ids=lambda info: f"{info.name} -> {info.linkname}",
)
def test_archives_cannot_leave_their_folder(bad: tarfile.TarInfo, tmp_path: Path) -> None:
    file = tar(tmp_path / "a.tar.gz", (member("good.g722"), b"x"), (bad, b""))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="points outside the archive"):
        fetch.unpack(file, tmp_path / "out", lambda name: name)
    assert {p.name for p in tmp_path.iterdir()} == {"a.tar.gz", "out"}


def test_links_and_devices_inside_an_archive_are_not_made(tmp_path: Path) -> None:
    file = tar(
        tmp_path / "a.tar.gz",
        (member("good.g722"), b"x"),
        (member("link.g722", tarfile.SYMTYPE, "good.g722"), b""),
        (member("pipe.g722", tarfile.FIFOTYPE), b""),
    )
    (tmp_path / "out").mkdir()
    assert fetch.unpack(file, tmp_path / "out", lambda name: name) == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.g722"]


@pytest.mark.parametrize("name", ["bomb.g722", "bomb.txt.gz"])
def test_archive_bombs_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr(fetch, "LARGEST", 10_000)
    content = gzip.compress(bytes(20_000)) if name.endswith(".gz") else bytes(20_000)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="more than 10,000 bytes"):
        fetch.unpack(tar(tmp_path / "a.tar.gz", (member(name), content)), tmp_path / "out", lambda name: name)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    good = tar(tmp_path / "a.tar.gz", (member("good.g722"), os.urandom(5000)))
    (tmp_path / "cut.tar.gz").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "no.deb").write_bytes(b"<html>")
    for name in ("cut.tar.gz", "no.deb"):
        with pytest.raises(DataError, match=name):
            fetch.unpack(tmp_path / name, tmp_path, lambda name: name)


# ---- FSDD and the hub


def test_fsdd_from_a_checkout_follows_the_official_rule(tmp_path: Path) -> None:
    target = tmp_path / "fsdd/recordings"
    target.mkdir(parents=True)
    for take in (0, 4, 5, 9, 10, 49):
        (target / f"7_theo_{take}.wav").write_bytes(encoded(waveform(take, 0.3, 8000), 8000))
    corpus = speech.prepare(fsdd.FSDD(path=str(tmp_path / "fsdd")), tmp_path / "cache")
    assert {name: sorted(split.ids) for name, split in corpus.splits.items()} == {
        "train": ["7_theo_10", "7_theo_49"],
        "validation": ["7_theo_5", "7_theo_9"],
        "test": ["7_theo_0", "7_theo_4"],
    }
    assert set(corpus.splits["train"].texts) == {"seven"}
    silence = 2400  # 0.15 s before and after the 0.3 s
    assert corpus.splits["test"].lengths.tolist() == [4800 + 2 * silence] * 2
    padded = corpus.splits["test"].waveform(0)
    assert len(padded) == 4800 + 2 * silence
    assert not padded[:silence].any() and not padded[-silence:].any() and padded[silence:-silence].any()
    (target / "seven.wav").write_bytes(encoded(waveform(1)))
    with pytest.raises(DataError, match=r"recordings/seven.wav: unknown file name"):
        speech.prepare(fsdd.FSDD(path=str(tmp_path / "fsdd")), tmp_path / "cache")


def test_fsdd_from_split_folders(tmp_path: Path) -> None:
    write_layout(tmp_path / "fsdd", "folders with csv")
    assert sizes(speech.prepare(fsdd.FSDD(path=str(tmp_path / "fsdd")), tmp_path / "cache")) == (8, 2, 2)


def hub_repository(path: Path, name: str, rows: dict[str, list[dict[str, Any]]], features: dict[str, Any]) -> Path:
    """A local repository in the layout that the hub has: parquet files whose metadata declares the features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.mkdir()
    declared = {"audio": {"_type": "Audio"}} | features
    lines = ["---", "configs:", f"- config_name: {name}", "  data_files:"]
    for split, content in rows.items():
        full = [
            {"audio": {"bytes": encoded(waveform(7 * len(split) + i)), "path": f"{i}.wav"}} | row
            for i, row in enumerate(content)
        ]
        table = pa.Table.from_pylist(full)
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": declared}})})
        pq.write_table(table, path / f"{split}.parquet")
        lines += [f"  - split: {split}", f"    path: {split}.parquet"]
    (path / "README.md").write_text("\n".join([*lines, "---", ""]))
    return path


STRING = {"_type": "Value", "dtype": "string"}


def test_librispeech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {s: [{"id": f"{s}-1", "text": f"{s} TEXT".upper()}] for s in ("train.100", "validation", "test")}
    source = hub_repository(tmp_path / "hub", "clean", parts, {"id": STRING, "text": STRING})
    corpus = speech.prepare(hub.LibriSpeech(path=str(source)), tmp_path / "cache")
    assert sizes(corpus) == (1, 1, 1) and corpus.splits["train"].texts == ["train.100 text"]
    assert len(corpus.splits["train"].waveform(0)) == RATE
    no_decoding(monkeypatch)
    assert speech.prepare(hub.LibriSpeech(path=str(source)), tmp_path / "cache").fingerprint == corpus.fingerprint


def test_common_voice(tmp_path: Path) -> None:
    parts = {
        s: [{"path": f"{s}_1.mp3", "sentence": "Don\N{RIGHT SINGLE QUOTATION MARK}t (stop), Zoë!"}] for s in SPLITS
    }
    source = hub_repository(tmp_path / "hub", "en", parts, {"path": STRING, "sentence": STRING})
    corpus = speech.prepare(hub.CommonVoice(path=str(source)), tmp_path / "cache")
    assert corpus.splits["test"].ids == ["test_1"] and corpus.splits["test"].texts == ["don't stop zoë"]


def test_speech_commands_leaves_background_noise_out(tmp_path: Path) -> None:
    parts = {s: [{"file": f"yes/{s}_{i}.wav", "label": i} for i in range(3)] for s in SPLITS}
    label = {"_type": "ClassLabel", "names": ["yes", "_silence_", "no"]}
    source = hub_repository(tmp_path / "hub", "v0.02", parts, {"file": STRING, "label": label})
    corpus = speech.prepare(hub.SpeechCommands(path=str(source)), tmp_path / "cache")
    assert sizes(corpus) == (2, 2, 2) and corpus.splits["test"].texts == ["yes", "no"]


def test_fsdd_from_the_hub_needs_file_names(tmp_path: Path) -> None:
    parts: dict[str, list[dict[str, Any]]] = {"train": [{"label": 7}], "test": [{"label": 7}]}
    source = hub_repository(tmp_path / "hub", "default", parts, {"label": {"_type": "Value", "dtype": "int64"}})
    with pytest.raises(DataError, match=r"found '0.wav', expected DIGIT_SPEAKER_TAKE.wav"):
        speech.prepare(fsdd.FSDD(repository=str(source)), tmp_path / "cache")


def test_an_unreachable_hub_and_missing_columns_are_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    source = hub_repository(tmp_path / "hub", "en", {"train": [{"path": "a"}]}, {"path": STRING})
    with pytest.raises(DataError, match="found the columns audio, path, expected also sentence"):
        speech.prepare(hub.CommonVoice(path=str(source)), tmp_path / "cache")

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        DataError, match=r"openslr/librispeech_asr clean train.100: .*Couldn't reach the Hub.*dataset.path"
    ):
        speech.prepare(hub.LibriSpeech(), tmp_path / "cache")
