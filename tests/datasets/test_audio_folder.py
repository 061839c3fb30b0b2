"""A user's recordings: layouts, and how they are split."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.audio_layouts import write_layout
from tests.support.bad_input import good_rows, write_csv
from tests.support.corpora import prepare, sizes
from toolkit.data.example import SPLITS, Example
from toolkit.data.problems import Problem
from toolkit.datasets import audio_folder
from toolkit.datasets.audio_folder import AudioFolder
from toolkit.datasets.base import recording


def folder(path: Path) -> AudioFolder:
    return AudioFolder(path=str(path))


@pytest.mark.parametrize(
    "layout", ["root csv", "root jsonl", "csv with byte order mark", "folders with csv", "folders with pairs"]
)
def test_layouts(layout: str, tmp_path: Path) -> None:
    write_layout(tmp_path / "data", layout)
    corpus = prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert sizes(corpus) == (8, 2, 2)
    assert (
        corpus.splits["train"].references[0] == "abcdefg hij" and corpus.splits["test"].references[1] == "brown foxes"
    )


def test_pairs_without_splits_are_cut(tmp_path: Path) -> None:
    for row in good_rows(tmp_path / "data"):
        (tmp_path / "data" / row["file_name"]).with_suffix(".txt").write_text(row["transcription"])
    corpus = prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert sizes(corpus) == (10, 1, 1)


def test_a_missing_validation_split_is_cut_from_train_alone(tmp_path: Path) -> None:
    rows = [row for row in good_rows(tmp_path / "data") if row["split"] != "validation"]
    write_csv(tmp_path / "data", rows)
    corpus = prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert sizes(corpus) == (7, 1, 2)
    assert corpus.splits["test"].ids == ["good_10", "good_11"]


def test_texts_are_normalised_to_nfc_and_single_blanks(tmp_path: Path) -> None:
    rows = good_rows(tmp_path / "data")
    rows[0]["transcription"] = " cafe\N{COMBINING ACUTE ACCENT}  au\tlait\n"
    write_csv(tmp_path / "data", rows)
    corpus = prepare(folder(tmp_path / "data"), tmp_path / "cache")
    assert corpus.splits["train"].references[0] == "caf\N{LATIN SMALL LETTER E WITH ACUTE} au lait"


def records(texts: list[str]) -> list[Example]:
    return [recording(f"r{i}", "train", text, b"", f"line {i}") for i, text in enumerate(texts)]


def cut(texts: list[str], seed: int = 0, disjoint: bool = True) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for item in audio_folder.cut(records(texts), 0.1, 0.2, seed, disjoint):
        assert isinstance(item, Example), item
        found[item.split].append(str(item.values["text"]))
    return found


def test_no_transcript_is_cut_into_two_splits() -> None:
    texts = [f"text {i % 60}" for i in range(100)]
    splits = cut(texts)
    assert [len(splits[name]) for name in SPLITS] == [70, 10, 20]
    assert not set(splits["train"]) & set(splits["test"]) and not set(splits["train"]) & set(splits["validation"])
    assert not set(splits["validation"]) & set(splits["test"])
    assert cut(texts[::-1])["test"] == splits["test"][::-1]
    assert cut(texts, seed=1)["test"] != splits["test"]


def test_the_only_transcripts_with_a_character_stay_in_train() -> None:
    common = [f"text {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100)]
    for seed in range(20):  # without the rule, one of them leaves train with nearly every second seed
        splits = cut([*common, "groß", "café"], seed)
        assert {"groß", "café"} <= set(splits["train"]) and [len(splits[name]) for name in SPLITS] == [72, 10, 20]


def test_transcripts_that_are_equal_once_normalised_stay_together() -> None:
    texts = [form.format(chr(97 + i // 26) + chr(97 + i % 26)) for i in range(50) for form in ("Word {}!", "word {}")]
    for seed in range(5):
        items = audio_folder.cut(records(texts), 0.1, 0.2, seed, True, ["lower", "punctuation"])
        splits: dict[str, set[str]] = defaultdict(set)
        for item in items:
            assert isinstance(item, Example)
            splits[str(item.values["text"]).lower().rstrip("!")].add(item.split)
        assert all(len(found) == 1 for found in splits.values())


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
