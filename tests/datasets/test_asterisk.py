"""The prompts of Asterisk: tables of splits, downloads, and versions."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import debian_package
from tests.support.corpora import prepare, sizes
from toolkit.data.columns.text import clean
from toolkit.data.example import SPLITS
from toolkit.data.sources import fetch
from toolkit.datasets import asterisk
from toolkit.errors import DataError

COUNTS = {"en": (431, 46, 66), "es": (397, 23, 43), "fr": (418, 27, 51)}
LETTERS = {"en": "", "es": "", "fr": "àâçèéêëîïôùûœ"}


@pytest.mark.parametrize("language", COUNTS)
def test_the_tables_keep_their_promises(language: str) -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    rows = asterisk.table(language)
    for row in rows:
        texts[row["split"]].add(row["transcription"])
        assert row["transcription"] == clean(row["transcription"]).lower()
    assert tuple(sum(row["split"] == name for row in rows) for name in SPLITS) == COUNTS[language]
    assert len({row["name"] for row in rows}) == len(rows)
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    words = {word for text in texts["train"] for word in text.split()}
    for text in texts["validation"] | texts["test"]:
        assert set(text.split()) <= words and len(text.split()) >= 2, text
    characters = {c for split in texts.values() for text in split for c in text}
    assert characters <= set("abcdefghijklmnopqrstuvwxyz '" + LETTERS[language])


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
        corpus = prepare(asterisk.Asterisk(), tmp_path / "cache")
        assert {name: (s.ids, s.references) for name, s in corpus.splits.items()} == {
            "train": (["digits/1"], ["one"]),
            "validation": (["bye"], ["bye you"]),
            "test": (["hello"], ["hello you"]),
        }
    assert prompts["downloads"] == 1
    assert len(corpus.splits["train"].input.waveform(0)) == 2 * 256 * 40  # G.722: two samples a byte
    (unpacked,) = (tmp_path / "cache/downloads").iterdir()
    assert not list(unpacked.glob("**/*.deb")) and not (unpacked / "y").exists()


def test_unpacked_prompts_can_be_given(prompts: dict[str, int], tmp_path: Path) -> None:
    corpus = prepare(asterisk.Asterisk(path=str(tmp_path / "expected")), tmp_path / "cache")
    assert sizes(corpus) == (1, 1, 1) and prompts["downloads"] == 0


def test_another_version_of_the_prompts_is_refused(
    prompts: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = asterisk.CHECKSUMS["en"]
    monkeypatch.setitem(asterisk.CHECKSUMS, "en", "0" * 64)
    with pytest.raises(
        DataError, match=rf"core-sounds-en_1_all.deb: .* is {right}, expected 0{{64}} \(version 1.6.1\)"
    ):
        prepare(asterisk.Asterisk(), tmp_path / "cache")
    assert list((tmp_path / "cache/downloads").iterdir()) == []
    (tmp_path / "expected/core-sounds-en.txt").write_text("hello: Hi\nbye: Bye you\n")
    with pytest.raises(DataError) as caught:
        prepare(asterisk.Asterisk(path=str(tmp_path / "expected")), tmp_path / "cache")
    assert "the source's text is 'Hi', expected 'Hello, you.'" in str(caught.value)
    assert "the source's text is None, expected 'one'" in str(caught.value)


def test_without_any_source_both_ways_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    def unreachable(address: str, *_: Any, **__: Any) -> Any:
        raise fetch.urllib.error.URLError("no route to host")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", unreachable)
    with pytest.raises(DataError) as caught:
        prepare(asterisk.Asterisk(language="fr"), tmp_path / "cache")
    message = str(caught.value)
    assert "apt-get is not on this machine" in message and "dataset.path=FOLDER" in message
    assert "releases/asterisk-core-sounds-fr-g722-1.6.1.tar.gz: no route to host" in message
