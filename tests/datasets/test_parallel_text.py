"""A user's parallel corpora: layouts, languages, and how they are split."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import bad_pairs, made
from tests.support.corpora import both_stages, prepare
from tests.support.pair_runs import GOOD, languages_of, many_pairs, run_of, single_file, texts
from toolkit.config import schema as config
from toolkit.config.spec import problems
from toolkit.datasets import parallel_hub, parallel_text
from toolkit.datasets.base import pair
from toolkit.datasets.layouts import pairs as layouts
from toolkit.datasets.parallel_text import ParallelText
from toolkit.errors import DataError


def test_both_layouts_plain_and_gzipped_give_the_same_pairs(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "tables")
    bad_pairs.aligned(tmp_path / "aligned")
    for file in list(tmp_path.glob("*/train.*")):
        (tmp_path / f"{file.parent.name}_gz").mkdir(exist_ok=True)
        for other in file.parent.iterdir():
            packed = tmp_path / f"{file.parent.name}_gz" / f"{other.name}.gz"
            packed.write_bytes(gzip.compress(other.read_bytes()))
    for name in ("tables", "tables_gz", "aligned", "aligned_gz"):
        dataset = ParallelText(path=str(tmp_path / name), source="en")
        found = prepare(dataset, tmp_path)
        assert texts(found) == GOOD, name
        assert found.splits["train"].describe() == "6 examples (en, de)"
    assert found.splits["train"].origins[2] == "train.en.gz and train.de.gz, line 3"


def test_windows_files_are_read_like_others(tmp_path: Path) -> None:
    bad_pairs.aligned(tmp_path / "data")
    for file in (tmp_path / "data").iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    assert texts(prepare(ParallelText(path=str(tmp_path / "data"), source="en"), tmp_path)) == GOOD


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    bad_pairs.aligned(tmp_path / "data")
    with (tmp_path / "data/train.en").open("ab") as en, (tmp_path / "data/train.de").open("ab") as de:
        en.write("one\u2028two\nthree\n".encode())
        de.write("eins\u00a0 zwei\ndrei\n".encode())
    found = prepare(ParallelText(path=str(tmp_path / "data"), source="en"), tmp_path)
    assert texts(found)["train"][-2:] == [("one two", "eins zwei"), ("three", "drei")]


@pytest.mark.parametrize(
    "layout, given, languages",
    [
        ("tables", {}, ("en", "de")),  # the order of the columns
        ("aligned", {}, ("de", "en")),  # that of the alphabet
        ("tables", {"source": "de"}, ("de", "en")),
        ("aligned", {"target": "de"}, ("en", "de")),
        ("aligned", {"source": "en", "target": "de"}, ("en", "de")),
    ],
)
def test_direction(layout: str, given: dict[str, str], languages: tuple[str, str], tmp_path: Path) -> None:
    getattr(bad_pairs, layout)(tmp_path / "data")
    split = prepare(ParallelText(path=str(tmp_path / "data"), **given), tmp_path).splits["test"]
    assert languages_of(split) == languages
    source, target = bad_pairs.TEST[0] if languages[0] == "en" else bad_pairs.TEST[0][::-1]
    assert (split.input.texts[0], split.target.texts[0]) == (source, target)


def test_tables_may_differ_in_the_order_of_their_columns(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "data")
    rows = ["de\tid\ten", *(f"{de}\t{i}\t{en}" for i, (en, de) in enumerate(bad_pairs.TEST))]
    (tmp_path / "data/test.tsv").write_bytes(bad_pairs.encoded(rows))
    found = prepare(ParallelText(path=str(tmp_path / "data")), tmp_path)
    assert texts(found) == GOOD
    assert found.splits["test"].ids == ["0", "1"]


@pytest.mark.parametrize("extra", ["", "\tde"])
def test_id_may_be_indonesian(extra: str, tmp_path: Path) -> None:
    for name, row in ("train", "a house\trumah"), ("val", "a tree\tpohon"), ("test", "a man\torang"):
        (tmp_path / f"{name}.tsv").write_text(f"en\tid{extra}\n{row}{extra}\n")
    chosen = {"source": "en", "target": "id"} if extra else {}
    found = prepare(ParallelText(path=str(tmp_path), **chosen), tmp_path)
    assert languages_of(found.splits["train"]) == ("en", "id")
    assert texts(found)["test"] == [("a man", "orang")] and found.splits["test"].ids == ["test.2"]


def test_columns_with_long_names_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "all.tsv"
    file.write_bytes(bad_pairs.encoded(["english\tgerman", *map("\t".join, bad_pairs.TRAIN)]))
    with pytest.raises(DataError, match=r"set dataset.source=... and dataset.target=..."):
        prepare(ParallelText(path=str(file)), tmp_path)
    found = prepare(ParallelText(path=str(file), source="english", target="german"), tmp_path)
    assert sum(map(len, found.splits.values())) == len(bad_pairs.TRAIN)


def test_bad_fields_are_config_errors() -> None:
    assert dict(problems(ParallelText(path="x", source="en", target="en"))).keys() == {"target"}
    assert dict(problems(ParallelText())).keys() == {"path"}
    assert dict(problems(ParallelText(path="x", validation_fraction=0.5, test_fraction=0.5))).keys() == {
        "test_fraction"
    }
    assert dict(problems(parallel_hub.Tatoeba(source="fr", target="de"))).keys() == {"target"}


def test_splits_are_cut_so_that_no_sentence_is_in_two(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 300, (500, 2))
    chosen = [(a, b) for a, b in numbers if (a + b) % 7 == 0]
    pairs = [(f"Sentence {a}" if i % 2 else f"sentence  {a}", f"Satz {b}") for i, (a, b) in enumerate(chosen)]
    pairs += [(f"alone {i}", f"allein {i}") for i in range(250)]
    pairs += [(f"{name} {i}", f"{name} Satz {i}") for i in range(25) for name in ("Twin", "twin")]
    dataset = ParallelText(
        path=str(single_file(tmp_path / "all.tsv", pairs)), validation_fraction=0.1, test_fraction=0.2
    )
    found = texts(prepare(dataset, tmp_path))
    assert sorted(itertools.chain(*found.values())) == sorted((" ".join(a.split()), b) for a, b in pairs)
    sizes = {name: len(split) / len(pairs) for name, split in found.items()}
    assert sizes == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.01)
    for side in (0, 1):
        sentences = [{pair[side].lower() for pair in split} for split in found.values()]
        assert sum(map(len, sentences)) == len(set.union(*sentences))


def test_the_cut_depends_neither_on_direction_nor_on_order_but_on_the_seed(tmp_path: Path) -> None:
    pairs = many_pairs()
    forward = ParallelText(path=str(single_file(tmp_path / "all.tsv", pairs)))
    test = {pair for pair in texts(prepare(forward, tmp_path))["test"]}
    assert 0 < len(test) <= 20
    backward = dataclasses.replace(forward, source="de", target="en")
    assert {pair[::-1] for pair in texts(prepare(backward, tmp_path))["test"]} == test
    shuffled = dataclasses.replace(forward, path=str(single_file(tmp_path / "back.tsv", pairs[::-1])))
    assert set(texts(prepare(shuffled, tmp_path))["test"]) == test
    other = dataclasses.replace(forward, split_seed=1)
    assert set(texts(prepare(other, tmp_path))["test"]) != test


def test_empty_sides_do_not_glue_pairs_together(tmp_path: Path) -> None:
    pairs = [(f"no translation {i}", "") for i in range(3)] + [("a", "x"), ("b", "x")]
    examples = [pair(str(i), "train", *texts, "", ("en", "de")) for i, texts in enumerate(pairs)]
    assert sorted(len(group) for group in parallel_text._groups(examples).values()) == [1, 1, 1, 2]
    dataset = ParallelText(path=str(single_file(tmp_path / "all.tsv", [*many_pairs(), *pairs])), on_bad="drop")
    assert prepare(dataset, tmp_path).report.dropped == {"empty text": 3}


def test_data_that_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    file = single_file(tmp_path / "all.tsv", [(f"sentence {i}", "always the same") for i in range(50)])
    with pytest.raises(DataError, match="test: no split: none of the 1 groups"):
        prepare(ParallelText(path=str(file)), tmp_path)


def test_only_what_is_missing_is_cut(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "data")
    (tmp_path / "data/val.tsv").unlink()
    found = texts(prepare(ParallelText(path=str(tmp_path / "data")), tmp_path))
    assert found["test"] == GOOD["test"]
    assert len(found["validation"]) == 1


@pytest.mark.parametrize("layout", [bad_pairs.tables, bad_pairs.aligned])
def test_one_split_is_enough_to_measure_an_earlier_run(layout: Any, tmp_path: Path) -> None:
    layout(tmp_path / "data")
    for file in (tmp_path / "data").iterdir():
        if not file.name.startswith("test"):
            file.unlink()
    dataset = ParallelText(path=str(tmp_path / "data"), source="en", target="de", split="test")
    assert texts(prepare(dataset, tmp_path)) == {"train": [], "validation": [], "test": GOOD["test"]}
    multi30k = parallel_hub.Multi30k(path=str(tmp_path / "data"), test="test", split="test")
    assert texts(prepare(multi30k, tmp_path))["test"] == GOOD["test"]
    with pytest.raises(
        DataError, match=r"found test, expected train too; set dataset\.split=test to evaluate an earlier run"
    ):
        prepare(dataclasses.replace(dataset, split=None), tmp_path)
    with pytest.raises(DataError, match=r"found test, expected train too$"):
        prepare(dataclasses.replace(dataset, split="validation"), tmp_path)


def test_split_names() -> None:
    names = ("train", "Train", "dev", "valid", "test", "test2016", "test_2016_flickr", "testing", "tested", "all")
    found = [layouts.split_of(name) for name in names]
    assert found == ["train", "train", "validation", "validation", "test", "test", "test", "test", None, None]


def test_made_pairs_pass(tmp_path: Path) -> None:
    found = both_stages(run_of(ParallelText(path=str(made.pair_folder(tmp_path / "pairs")))), tmp_path)
    assert [len(split) for split in found.splits.values()] == [made.TRAIN, made.VALIDATION, made.TEST]
    assert found.report.notes == () and found.report.dropped == {}


def test_the_recipe_is_whole_for_both_directions() -> None:
    there = config.check(["recipe=translation"])
    assert (there.dataset.source, there.dataset.target) == ("en", "es")
    back = config.check(["recipe=translation", "dataset.source=es", "dataset.target=en"])
    assert (back.dataset.source, back.dataset.target) == ("es", "en")
    with pytest.raises(config.ConfigError, match=r"dataset.target: found es, which is dataset.source too"):
        config.check(["recipe=translation", "dataset.source=es"])
