"""The first stage: repeated examples, fingerprints, how problems are named, and where the cache is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import bad_pairs
from tests.support.corpora import prepare
from tests.support.pair_runs import GOOD, run_of, texts
from toolkit.data import pipeline
from toolkit.data.columns.column import columns_of
from toolkit.data.example import Example
from toolkit.datasets.base import pair
from toolkit.datasets.parallel_text import ParallelText


def test_pairs_in_two_splits_are_kept_and_named(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "data")
    with (tmp_path / "data/train.tsv").open("ab") as train, (tmp_path / "data/val.tsv").open("ab") as validation:
        for stream in (train, validation):
            stream.write(("\t".join(bad_pairs.TEST[0]) + "\n").encode())
        train.write(("\t".join(bad_pairs.VALIDATION[1]) + "\n").encode())
        train.write(("\t".join(bad_pairs.TRAIN[0]) + "\n").encode())  # twice in one split is no harm
    found = prepare(ParallelText(path=str(tmp_path / "data")), tmp_path)
    assert [len(split) for split in found.splits.values()] == [9, 3, 2]
    count, *lines = found.report.notes
    assert count == "examples in two splits: 3 (kept: dataset.repeats=keep)"
    said = "the same example as"
    assert [line.strip().partition(", so ")[0] for line in lines] == [
        f"train.tsv, line 8: {said} test.tsv, line 2",
        f"train.tsv, line 9: {said} val.tsv, line 3",
        f"val.tsv, line 4: {said} test.tsv, line 2",
    ]
    strict = ParallelText(path=str(tmp_path / "data"), repeats="bad", on_bad="drop")
    dropped = prepare(strict, tmp_path)
    assert dropped.report.dropped == {"in two splits": 3}
    assert texts(dropped) == GOOD | {"train": [*GOOD["train"], GOOD["train"][0]]}


def test_the_fingerprint_is_of_texts_ids_and_splits(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "data")
    dataset = ParallelText(path=str(tmp_path / "data"))

    def fingerprint(**changed: str) -> str:
        return prepare(dataclasses.replace(dataset, **changed), tmp_path).fingerprint

    first = fingerprint()
    seen = {first, fingerprint(source="de")}
    assert len(seen) == 2
    for old, new in (("rote", "blaue"), ("red", "blue"), ("en\tde", "de\ten")):
        file = tmp_path / "data/train.tsv"
        good = file.read_text()
        file.write_text(good.replace(old, new, 1))
        seen.add(fingerprint(source="en"))
        file.write_text(good)
    assert len(seen) == 5
    (tmp_path / "data/val.tsv").rename(tmp_path / "data/dev.tsv")
    assert fingerprint() == first


def test_the_fingerprint_knows_where_a_split_ends(tmp_path: Path) -> None:
    rows = [f"{i}\t{en}\t{de}" for i, (en, de) in enumerate((*bad_pairs.TRAIN, *bad_pairs.VALIDATION))]
    seen = set()
    for border in (6, 5):
        for name, chosen in (("train", rows[:border]), ("val", rows[border:]), ("test", ["t\ta\tb"])):
            (tmp_path / f"{name}.tsv").write_bytes(bad_pairs.encoded(["id\ten\tde", *chosen]))
        seen.add(prepare(ParallelText(path=str(tmp_path)), tmp_path).fingerprint)
    assert len(seen) == 2


def test_a_problem_names_its_line() -> None:
    dataset = ParallelText(path="x")
    example = pair("a", "train", "x", "", "f.tsv, line 3", ("en", "de"))
    _, [problem] = pipeline.make_split(dataset, columns_of(run_of(dataset)), [example])
    assert str(problem).startswith("f.tsv, line 3: empty text: de: found no text")


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TOOLKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert pipeline.cache_folder() == tmp_path / "toolkit"
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "mine"))
    assert pipeline.cache_folder() == tmp_path / "mine"


def test_only_the_chosen_groups_are_learned(tmp_path: Path) -> None:
    def column(folder: str) -> SimpleNamespace:
        return SimpleNamespace(folder=folder, learn=lambda values, path: learned.append((values, path.name)))

    learned: list[tuple[list[str], str]] = []
    columns = SimpleNamespace(input=column("features"), target=column("tokenizer/target"))
    split = SimpleNamespace(input="waveforms", target="texts")
    pipeline.learn(columns, split, tmp_path, ["tokenizer"])
    assert learned == [(["texts"], "target")] and [path.name for path in tmp_path.iterdir()] == ["tokenizer"]
    pipeline.learn(columns, split, tmp_path)
    assert learned[1:] == [(["waveforms"], "features"), (["texts"], "target")]


def test_an_id_that_is_not_utf8_is_a_bad_name(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "data")
    dataset = ParallelText(path=str(tmp_path / "data"))
    examples = [Example(id, "train", {"source": "a", "target": "b"}, "here") for id in ("caf\udce9", "café")]
    split, (problem,) = pipeline.make_split(dataset, columns_of(run_of(dataset)), examples)
    assert split.ids == ["café"]
    assert str(problem) == r"here: bad name: found 'caf\udce9', expected a name in UTF-8 without control characters"
