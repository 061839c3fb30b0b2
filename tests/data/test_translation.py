"""Parallel corpora: what is read, what is refused by line, how it is split, tokens and batches."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support import bad_pairs, made
from toolkit.config import schema as config
from toolkit.config.spec import problems
from toolkit.data import corpus, translation
from toolkit.data.batch import TRANSLATION
from toolkit.data.corpus import Corpus, Problem
from toolkit.data.translation import Pair, Tokens
from toolkit.datasets import parallel_hub, parallel_text
from toolkit.datasets.parallel_text import ParallelText
from toolkit.errors import DataError
from toolkit.features.tokens.spec import Tokens as Features
from toolkit.tokenizers.sentencepiece.spec import SentencePiece
from toolkit.training.spec import Trainer

MOST = 20  # tokens


class Words:
    """A tokenizer of whole words: those of the texts given."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.words = ["", *sorted({word for text in texts for word in text.split()})]
        self.size = len(self.words)

    def encode(self, text: str) -> list[int]:
        return [self.words.index(word) for word in text.split() if word in self.words]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[i] for i in ids)

    def unknown(self, text: str) -> list[str]:
        known = " " + "".join(self.words)
        return [c for c in text if c not in known]


@dataclasses.dataclass(frozen=True)
class WordsSpec:
    """Learns :class:`Words`."""

    joint: bool = True

    def learn(self, texts: Sequence[str], folder: Path) -> None:
        (folder / "words.json").write_text(json.dumps(list(texts)))

    def load(self, folder: Path) -> Words:
        return Words(json.loads((folder / "words.json").read_text()))


def run_of(dataset: Any, tokenizer: Any = None, **changed: Any) -> Any:
    fields = {
        "dataset": dataset,
        "tokenizer": tokenizer or WordsSpec(),
        "features": Features(max_tokens=MOST),
        "model": SimpleNamespace(),
        "trainer": Trainer(batch_budget=12, batch_examples=4),
        "seed": 0,
        "evaluate": None,
    }
    return SimpleNamespace(**fields | changed)


def learned(run: Any, found: Corpus, folder: Path) -> corpus.Learned:
    for name in ("tokenizer", "features"):
        (folder / name).mkdir(parents=True)
    translation.learn(run, found.splits["train"], folder)
    return translation.load(run, folder)


def both_stages(dataset: Any, folder: Path) -> Corpus:
    run = run_of(dataset)
    found = translation.prepare(dataset, folder / "cache")
    return translation.usable(run, found, learned(run, found, folder / "run"))


def texts(found: Corpus) -> dict[str, list[tuple[str, str]]]:
    return {name: list(zip(split.sources, split.texts, strict=True)) for name, split in found.splits.items()}


def english_first(found: Corpus) -> dict[str, list[tuple[str, str]]]:
    turn = -1 if found.splits["train"].languages == ("de", "en") else 1
    return {name: [pair[::turn] for pair in pairs] for name, pairs in texts(found).items()}


GOOD = {"train": list(bad_pairs.TRAIN), "validation": list(bad_pairs.VALIDATION), "test": list(bad_pairs.TEST)}


# ---- bad input


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bad_pairs.Case]:
    return {case.name: case for case in bad_pairs.make(tmp_path_factory.mktemp("bad"))}


@pytest.mark.parametrize("name", bad_pairs._CASES)
def test_refused_with_a_message(name: str, cases: dict[str, bad_pairs.Case], tmp_path: Path) -> None:
    case = cases[name]
    with pytest.raises(DataError) as caught:
        both_stages(ParallelText(path=str(case.path), **case.fields), tmp_path)
    for fragment in case.fragments:
        assert fragment in str(caught.value)
    assert caught.value.headline.startswith("1 problem "), str(caught.value)


@pytest.mark.parametrize("name", bad_pairs._CASES)
def test_dropped_with_a_count(name: str, cases: dict[str, bad_pairs.Case], tmp_path: Path) -> None:
    case = cases[name]
    dataset = ParallelText(path=str(case.path), on_bad="drop", **case.fields)
    if not case.droppable:
        with pytest.raises(DataError):
            both_stages(dataset, tmp_path)
        return
    found = both_stages(dataset, tmp_path)
    assert sum(found.report.dropped.values()) == 1
    good = (
        GOOD
        if name != "duplicate id"
        else GOOD | {"train": [pair for pair in GOOD["train"] if pair[0] != "a green tree"]}
    )
    assert english_first(found) == good


def test_all_problems_at_once(tmp_path: Path) -> None:
    bad_pairs.aligned(tmp_path / "data")
    with (tmp_path / "data/train.en").open("ab") as en, (tmp_path / "data/train.de").open("ab") as de:
        en.write(b"\n\0\nfine\nlatin \xe9\n")
        de.write(b"leer\nnull\ngut\n\xef\xbb\xbfmarke\n")
    with pytest.raises(DataError) as caught:
        translation.prepare(ParallelText(path=str(tmp_path / "data")), tmp_path)
    found = [line.split(": ")[:2] for line in caught.value.problems[:-1]]
    where = "train.de and train.en, line"
    kinds = ("empty side", "control character", "byte-order mark")  # German is the source, so it comes first
    assert found == [[f"{where} {n}", kind] for n, kind in zip((7, 8, 10), kinds, strict=True)]
    assert "dataset.on_bad=drop" in caught.value.problems[-1]


# one process a backend does half of them: the data is refused before a framework is loaded
WORKER = """
import contextlib, io, json, sys
from toolkit import run
backend, folder, *cases = sys.argv[1:]
found = {}
for number, case in enumerate(cases):
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        code = run.run(["recipe=translation", f"backend={backend}", "dataset=parallel_text", "features.max_tokens=28",
                        "tokenizer.vocab_size=60", f"run_dir={folder}/{number}", *json.loads(case)])
    found[number] = [code, error.getvalue()]
print(json.dumps({"found": list(found.values()), "loaded": sorted({"torch", "tensorflow"} & sys.modules.keys())}))
"""


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_every_kind_is_refused_by_the_command_line(
    backend: str, cases: dict[str, bad_pairs.Case], tmp_path: Path
) -> None:
    chosen = list(cases.values())[("torch", "tf").index(backend) :: 2]
    arguments = [
        json.dumps([f"dataset.path='{case.path}'", *(f"dataset.{name}={value}" for name, value in case.fields.items())])
        for case in chosen
    ]
    done = subprocess.run(
        [sys.executable, "-c", WORKER, backend, str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"TOOLKIT_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["loaded"] == []
    for number, (case, (code, text)) in enumerate(zip(chosen, said["found"], strict=True)):
        assert code == 2, (case.name, text)
        assert "Traceback" not in text, (case.name, text)
        for fragment in case.fragments:
            assert fragment in text, (case.name, fragment, text)
        assert not (tmp_path / str(number) / "checkpoints").exists()


# ---- layouts


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
        found = translation.prepare(dataset, tmp_path)
        assert texts(found) == GOOD, name
        assert found.splits["train"].describe() == "6 pairs en-de"
    assert found.splits["train"].origins[2] == "train.en.gz and train.de.gz, line 3"


def test_windows_files_are_read_like_others(tmp_path: Path) -> None:
    bad_pairs.aligned(tmp_path / "data")
    for file in (tmp_path / "data").iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    assert texts(translation.prepare(ParallelText(path=str(tmp_path / "data"), source="en"), tmp_path)) == GOOD


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    bad_pairs.aligned(tmp_path / "data")
    with (tmp_path / "data/train.en").open("ab") as en, (tmp_path / "data/train.de").open("ab") as de:
        en.write("one\u2028two\nthree\n".encode())
        de.write("eins\u00a0 zwei\ndrei\n".encode())
    found = translation.prepare(ParallelText(path=str(tmp_path / "data"), source="en"), tmp_path)
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
    split = translation.prepare(ParallelText(path=str(tmp_path / "data"), **given), tmp_path).splits["test"]
    assert split.languages == languages
    source, target = bad_pairs.TEST[0] if languages[0] == "en" else bad_pairs.TEST[0][::-1]
    assert (split.sources[0], split.texts[0]) == (source, target)


def test_tables_may_differ_in_the_order_of_their_columns(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "data")
    rows = ["de\tid\ten", *(f"{de}\t{i}\t{en}" for i, (en, de) in enumerate(bad_pairs.TEST))]
    (tmp_path / "data/test.tsv").write_bytes(bad_pairs.encoded(rows))
    found = translation.prepare(ParallelText(path=str(tmp_path / "data")), tmp_path)
    assert texts(found) == GOOD
    assert found.splits["test"].ids == ["0", "1"]


@pytest.mark.parametrize("extra", ["", "\tde"])
def test_id_may_be_indonesian(extra: str, tmp_path: Path) -> None:
    for name, row in ("train", "a house\trumah"), ("val", "a tree\tpohon"), ("test", "a man\torang"):
        (tmp_path / f"{name}.tsv").write_text(f"en\tid{extra}\n{row}{extra}\n")
    chosen = {"source": "en", "target": "id"} if extra else {}
    found = translation.prepare(ParallelText(path=str(tmp_path), **chosen), tmp_path)
    assert found.splits["train"].languages == ("en", "id")
    assert texts(found)["test"] == [("a man", "orang")] and found.splits["test"].ids == ["test.2"]


def test_columns_with_long_names_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "all.tsv"
    file.write_bytes(bad_pairs.encoded(["english\tgerman", *map("\t".join, bad_pairs.TRAIN)]))
    with pytest.raises(DataError, match=r"give dataset.source=... and dataset.target=..."):
        translation.prepare(ParallelText(path=str(file)), tmp_path)
    found = translation.prepare(ParallelText(path=str(file), source="english", target="german"), tmp_path)
    assert sum(map(len, found.splits.values())) == len(bad_pairs.TRAIN)


def test_bad_fields_are_config_errors() -> None:
    assert dict(problems(ParallelText(path="x", source="en", target="en"))).keys() == {"target"}
    assert dict(problems(ParallelText())).keys() == {"path"}
    assert dict(problems(ParallelText(path="x", validation_fraction=0.5, test_fraction=0.5))).keys() == {
        "test_fraction"
    }
    assert dict(problems(parallel_hub.Tatoeba(source="fr", target="de"))).keys() == {"target"}


# ---- splits


def many_pairs(count: int = 400) -> list[tuple[str, str]]:
    """Pairs that share sentences, two or four of them."""
    return [(f"sentence {i // 2}", f"Satz {i // 4 if i % 8 < 4 else i}") for i in range(count)]


def single_file(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    path.write_bytes(bad_pairs.encoded(["en\tde", *map("\t".join, pairs)]))
    return path


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
    found = texts(translation.prepare(dataset, tmp_path))
    assert sorted(itertools.chain(*found.values())) == sorted((" ".join(a.split()), b) for a, b in pairs)
    sizes = {name: len(split) / len(pairs) for name, split in found.items()}
    assert sizes == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.01)
    for side in (0, 1):
        sentences = [{pair[side].lower() for pair in split} for split in found.values()]
        assert sum(map(len, sentences)) == len(set.union(*sentences))


def test_the_cut_depends_neither_on_direction_nor_on_order_but_on_the_seed(tmp_path: Path) -> None:
    pairs = many_pairs()
    forward = ParallelText(path=str(single_file(tmp_path / "all.tsv", pairs)))
    test = {pair for pair in texts(translation.prepare(forward, tmp_path))["test"]}
    assert 0 < len(test) <= 20
    backward = dataclasses.replace(forward, source="de", target="en")
    assert {pair[::-1] for pair in texts(translation.prepare(backward, tmp_path))["test"]} == test
    shuffled = dataclasses.replace(forward, path=str(single_file(tmp_path / "back.tsv", pairs[::-1])))
    assert set(texts(translation.prepare(shuffled, tmp_path))["test"]) == test
    other = dataclasses.replace(forward, split_seed=1)
    assert set(texts(translation.prepare(other, tmp_path))["test"]) != test


def test_empty_sides_do_not_glue_pairs_together(tmp_path: Path) -> None:
    pairs = [(f"no translation {i}", "") for i in range(3)] + [("a", "x"), ("b", "x")]
    made = [Pair(str(i), "train", *texts, "", ("en", "de")) for i, texts in enumerate(pairs)]
    assert sorted(len(group) for group in parallel_text._groups(made).values()) == [1, 1, 1, 2]
    dataset = ParallelText(path=str(single_file(tmp_path / "all.tsv", [*many_pairs(), *pairs])), on_bad="drop")
    assert translation.prepare(dataset, tmp_path).report.dropped == {"empty side": 3}


def test_data_that_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    file = single_file(tmp_path / "all.tsv", [(f"sentence {i}", "always the same") for i in range(50)])
    with pytest.raises(DataError, match="test: no split: none of the 1 groups"):
        translation.prepare(ParallelText(path=str(file)), tmp_path)


def test_only_what_is_missing_is_cut(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "data")
    (tmp_path / "data/val.tsv").unlink()
    found = texts(translation.prepare(ParallelText(path=str(tmp_path / "data")), tmp_path))
    assert found["test"] == GOOD["test"]
    assert len(found["validation"]) == 1


@pytest.mark.parametrize("layout", [bad_pairs.tables, bad_pairs.aligned])
def test_one_split_is_enough_to_measure_an_earlier_run(layout: Any, tmp_path: Path) -> None:
    layout(tmp_path / "data")
    for file in (tmp_path / "data").iterdir():
        if not file.name.startswith("test"):
            file.unlink()
    dataset = ParallelText(path=str(tmp_path / "data"), source="en", target="de", split="test")
    assert texts(translation.prepare(dataset, tmp_path)) == {"train": [], "validation": [], "test": GOOD["test"]}
    multi30k = parallel_hub.Multi30k(path=str(tmp_path / "data"), test="test", split="test")
    assert texts(translation.prepare(multi30k, tmp_path))["test"] == GOOD["test"]
    with pytest.raises(DataError, match=r"found test, expected train too; dataset\.split=test measures an earlier run"):
        translation.prepare(dataclasses.replace(dataset, split=None), tmp_path)
    with pytest.raises(DataError, match=r"found test, expected train too$"):
        translation.prepare(dataclasses.replace(dataset, split="validation"), tmp_path)


# ---- repeats, fingerprints


def test_pairs_in_two_splits_are_kept_and_named(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "data")
    with (tmp_path / "data/train.tsv").open("ab") as train, (tmp_path / "data/val.tsv").open("ab") as validation:
        for stream in (train, validation):
            stream.write(("\t".join(bad_pairs.TEST[0]) + "\n").encode())
        train.write(("\t".join(bad_pairs.VALIDATION[1]) + "\n").encode())
        train.write(("\t".join(bad_pairs.TRAIN[0]) + "\n").encode())  # twice in one split is no harm
    found = translation.prepare(ParallelText(path=str(tmp_path / "data")), tmp_path)
    assert [len(split) for split in found.splits.values()] == [9, 3, 2]
    counts, lines = found.report.notes[:3], found.report.notes[3:]
    assert [note.partition(" too")[0] for note in counts] == [
        "train: 1 of its pairs in test",
        "train: 1 of its pairs in validation",
        "validation: 1 of its pairs in test",
    ]
    assert [line.strip() for line in lines] == [
        "train.tsv, line 8 = test.tsv, line 2",
        "train.tsv, line 9 = val.tsv, line 3",
        "val.tsv, line 4 = test.tsv, line 2",
    ]
    strict = ParallelText(path=str(tmp_path / "data"), repeats="bad", on_bad="drop")
    dropped = translation.prepare(strict, tmp_path)
    assert dropped.report.dropped == {"in two splits": 3}
    assert texts(dropped) == GOOD | {"train": [*GOOD["train"], GOOD["train"][0]]}


def test_the_fingerprint_is_of_texts_ids_and_splits(tmp_path: Path) -> None:
    bad_pairs.tables(tmp_path / "data")
    dataset = ParallelText(path=str(tmp_path / "data"))

    def fingerprint(**changed: str) -> str:
        return translation.prepare(dataclasses.replace(dataset, **changed), tmp_path).fingerprint

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
        seen.add(translation.prepare(ParallelText(path=str(tmp_path)), tmp_path).fingerprint)
    assert len(seen) == 2


# ---- tokens


@pytest.fixture
def small(tmp_path: Path) -> ParallelText:
    bad_pairs.tables(tmp_path / "data")
    return ParallelText(path=str(tmp_path / "data"))


@pytest.mark.parametrize("joint", [True, False])
def test_tokenizers_of_both_languages_or_one_of_each(joint: bool, small: ParallelText, tmp_path: Path) -> None:
    run = run_of(small, SentencePiece(vocab_size=45, joint=joint))
    found = translation.prepare(small, tmp_path)
    known = learned(run, found, tmp_path / "run")
    models = [file.relative_to(tmp_path / "run/tokenizer") for file in (tmp_path / "run").rglob("*.model")]
    assert sorted(str(model.parent) for model in models) == (["."] if joint else ["source", "target"])
    assert (known.inputs, known.outputs) == (45, 45) == (known.tokenizer.source_size, known.tokenizer.size)
    assert known.features == {}
    source, target = bad_pairs.TRAIN[1]
    assert known.tokenizer.decode(known.tokenizer.target.encode(target)) == target
    assert known.tokenizer.source.decode(known.tokenizer.source.encode(source)) == source
    assert (known.tokenizer.target.encode(source) == known.tokenizer.source.encode(source)) == joint


def test_separate_vocabularies_may_differ_in_size(small: ParallelText, tmp_path: Path) -> None:
    found = translation.prepare(small, tmp_path)
    known = learned(run_of(small, WordsSpec(joint=False)), found, tmp_path / "run")
    sides = [{word for pair in GOOD["train"] for word in pair[side].split()} for side in (0, 1)]
    assert (known.inputs, known.outputs) == (len(sides[0]) + 1, len(sides[1]) + 1)
    assert known.tokenizer.source.words != known.tokenizer.target.words


def test_characters_that_a_tokenizer_lacks_become_a_note(small: ParallelText, tmp_path: Path) -> None:
    with (Path(small.path or "") / "test.tsv").open("ab") as stream:
        stream.write("a Ω man\tein Mann\n✓ a tree\tein Ωß Baum ^\n".encode())
    notes = both_stages(small, tmp_path).report.notes
    unknown = "sentences have characters unknown to the tokenizer:"
    assert [note.partition(" (")[0] for note in notes] == [f"test: 2 en {unknown} 'Ω'", f"test: 1 de {unknown} '^'"]
    assert "'✓' (U+2713 CHECK MARK)" in notes[0]


def test_a_model_with_fewer_positions_bounds_the_tokens(small: ParallelText, tmp_path: Path) -> None:
    found = translation.prepare(small, tmp_path)
    run = run_of(small, model=SimpleNamespace(max_positions=4))
    with pytest.raises(DataError) as caught:
        translation.usable(run, found, learned(run, found, tmp_path / "run"))
    long = [pair for pairs in GOOD.values() for pair in pairs if max(len(text.split()) for text in pair) > 3]
    assert len(caught.value.problems) == len(long) + 1
    assert "4 tokens, expected at most 3 (model.max_positions less the end)" in caught.value.problems[0]


def test_a_sentence_that_the_tokenizer_knows_nothing_of_is_bad(small: ParallelText, tmp_path: Path) -> None:
    with (Path(small.path or "") / "val.tsv").open("ab") as stream:
        stream.write(b"nothing known\tein Baum\n")
    with pytest.raises(
        DataError, match=r"val.tsv, line 4: no tokens: en: the tokenizer knows nothing of 'nothing known'"
    ):
        both_stages(small, tmp_path)


def test_tokens_select() -> None:
    sentences = [[1, 2, 3], [], [4], [5, 6]]
    tokens = Tokens.of(sentences)
    assert [tokens[i].tolist() for i in range(4)] == sentences
    assert tokens.lengths.tolist() == [3, 0, 1, 2]
    assert tokens.values.dtype == np.int32
    chosen = tokens.select([1, 3])
    assert [chosen[i].tolist() for i in range(2)] == [[], [5, 6]]
    none = Tokens.of([])
    assert none.lengths.tolist() == [] and none.select([]).lengths.tolist() == []


def test_the_same_tokens_with_and_without_the_second_stage(small: ParallelText, tmp_path: Path) -> None:
    with (Path(small.path or "") / "train.tsv").open("rb+") as stream:
        rows = stream.read().splitlines(keepends=True)
        stream.seek(0)
        stream.writelines([rows[0], "\t".join(bad_pairs.LONG).encode() + b"\n", *rows[1:]])
    dataset = dataclasses.replace(small, on_bad="drop")
    run = run_of(dataset)
    found = translation.prepare(dataset, tmp_path)
    known = learned(run, found, tmp_path / "run")
    kept = translation.usable(run, found, known).splits["train"]
    assert len(kept) == 6 and kept.sources[0] == "the red house"
    bare = dataclasses.replace(kept, tokens=None)
    for one, other in zip(
        *(translation.data(run, s, known, True).collator(np.arange(6), 0).values() for s in (kept, bare)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


# ---- batches


def test_the_plan_counts_tokens_of_the_longer_side_with_the_end(small: ParallelText, tmp_path: Path) -> None:
    run = run_of(small)
    found = translation.prepare(small, tmp_path)
    known = learned(run, found, tmp_path / "run")
    data = translation.data(run, found.splits["train"], known, True)
    expected = [max(len(en.split()), len(de.split()) + 1) for en, de in bad_pairs.TRAIN]
    assert data.plan.lengths.tolist() == expected
    for epoch in range(3):
        batches = data.plan.epoch(epoch)
        assert sorted(np.concatenate(batches)) == list(range(6))
        assert all(len(batch) * data.plan.lengths[batch].max() <= 12 for batch in batches)


def test_a_batch_has_the_fields_of_translation(small: ParallelText, tmp_path: Path) -> None:
    run = run_of(small)
    found = translation.prepare(small, tmp_path)
    known = learned(run, found, tmp_path / "run")
    collator = pickle.loads(pickle.dumps(translation.data(run, found.splits["train"], known, True).collator))
    batch = collator(np.array([3, 0, 5]), 7)
    assert {name: (array.ndim, array.dtype) for name, array in batch.items()} == {
        name: (len(axes), np.dtype(kind)) for name, (axes, kind) in TRANSLATION.items()
    }
    assert batch["example"].tolist() == [3, 0, 5]
    for row, example in enumerate((3, 0, 5)):
        for name, text in zip(("source", "tokens"), bad_pairs.TRAIN[example], strict=True):
            lengths = batch["source_lengths" if name == "source" else "token_lengths"]
            assert lengths[row] == len(text.split())
            assert known.tokenizer.decode(batch[name][row, : lengths[row]]) == text
            assert not batch[name][row, lengths[row] :].any()
    assert 0 not in known.tokenizer.target.encode(" ".join(bad_pairs.TRAIN[0]))  # the boundary


def test_an_empty_split_has_no_batches(small: ParallelText, tmp_path: Path) -> None:
    run = run_of(small)
    found = translation.prepare(small, tmp_path)
    known = learned(run, found, tmp_path / "run")
    data = translation.data(run, found.splits["validation"].select([]), known, False)
    assert len(data.plan) == 0


# ---- what a user gives


def test_given_lines(small: ParallelText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(small)
    known = learned(run, translation.prepare(small, tmp_path), tmp_path / "run")
    (tmp_path / "lines.txt").write_bytes(b"\xef\xbb\xbfthe red house\r\n\r\nshe sleeps\r\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a  green tree\nb\0d\n")))
    inputs = ["the old man", str(tmp_path / "lines.txt"), "-", "house " * 21, "x" * 5000]
    given = translation.given(run, inputs, known)
    split, bad = given.split, given.problems
    assert split.sources == ["the old man", "the red house", "she sleeps", "a green tree"]
    assert split.ids == [
        "input 1",
        f"{tmp_path}/lines.txt, line 1",
        f"{tmp_path}/lines.txt, line 3",
        "standard input, line 1",
    ]
    assert split.texts == [""] * 4
    assert [(problem.where, problem.kind) for problem in bad] == [
        ("standard input, line 2", "control character"),
        ("input 4", "too long"),
        ("input 5", "no tokens"),
    ]
    assert given.blank == ((2, f"{tmp_path}/lines.txt, line 2"),)
    data = translation.data(run, split, known, False)
    assert data.collator(np.arange(4), 0)["token_lengths"].tolist() == [0] * 4


@pytest.mark.parametrize(
    "text, sources, blank, kinds",
    [
        (b"", [], [], []),
        (b"\n", [], [0], []),
        (b"\n the man \n \t\nshe sleeps\n\n", ["the man", "she sleeps"], [0, 2, 4], []),
        (b"b\0d\n\nshe sleeps", ["she sleeps"], [0], ["control character"]),  # a bad line has no place
        ("she".encode("utf-16"), [], [], ["not UTF-8"]),
    ],
)
def test_standard_input_is_read_like_a_file(
    text: bytes,
    sources: list[str],
    blank: list[int],
    kinds: list[str],
    small: ParallelText,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_of(small)
    known = learned(run, translation.prepare(small, tmp_path), tmp_path / "run")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    (tmp_path / "lines.txt").write_bytes(text)
    for name in ("-", str(tmp_path / "lines.txt")):
        given = translation.given(run, [name], known)
        assert given.split.sources == sources
        assert [place for place, _ in given.blank] == blank
        assert [problem.kind for problem in given.problems] == kinds


# ---- the recipe


def test_the_recipe_is_whole_for_both_directions() -> None:
    there = config.check(["recipe=translation"])
    assert (there.dataset.source, there.dataset.target) == ("en", "es")
    back = config.check(["recipe=translation", "dataset.source=es", "dataset.target=en"])
    assert (back.dataset.source, back.dataset.target) == ("es", "en")
    with pytest.raises(config.ConfigError, match=r"dataset.target: found es, which is dataset.source too"):
        config.check(["recipe=translation", "dataset.source=es"])


def test_made_pairs_pass(tmp_path: Path) -> None:
    found = both_stages(ParallelText(path=str(made.pair_folder(tmp_path / "pairs"))), tmp_path)
    assert [len(split) for split in found.splits.values()] == [made.TRAIN, made.VALIDATION, made.TEST]
    assert found.report.notes == () and found.report.dropped == {}


def test_a_problem_names_its_line() -> None:
    pair = Pair("a", "train", "x", "", "f.tsv, line 3", ("en", "de"))
    [found] = translation._sound([pair], None)[1]
    assert isinstance(found, Problem) and str(found).startswith("f.tsv, line 3: empty side: de: found no text")


def test_split_names() -> None:
    names = ("train", "Train", "dev", "valid", "test", "test2016", "test_2016_flickr", "testing", "tested", "all")
    found = [parallel_text.split_of(name) for name in names]
    assert found == ["train", "train", "validation", "validation", "test", "test", "test", "test", None, None]
