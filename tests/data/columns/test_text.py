"""Texts of a run: tokenizers, tokens, batches, and lines given for prediction."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support import bad_pairs
from tests.support.corpora import WordsSpec, both_stages, given, learned, prepare
from tests.support.pair_runs import GOOD, MOST, run_of
from toolkit.data.columns.column import columns_of
from toolkit.data.columns.text import Text, Tokens, _input_lines
from toolkit.data.example import Example
from toolkit.data.pipeline import usable
from toolkit.data.problems import Problem
from toolkit.data.split import Data, Learned, Split, batch_fields, batched, encoded
from toolkit.datasets.parallel_text import ParallelText
from toolkit.errors import DataError
from toolkit.tokenizers.sentencepiece.spec import SentencePiece


@pytest.mark.parametrize("value", [None, float("nan"), ""])
def test_no_value_is_no_text(value: object, small: ParallelText) -> None:
    column = Text("text", "target", small, None)
    assert column.check(value)[1] == column.check("")[1] != ""
    assert column.check("ab")[1] == ""


@pytest.mark.parametrize("ratio, kind", [(None, ""), (3.0, "length ratio")])
def test_sentences_may_be_plain_strings(small: ParallelText, ratio: float | None, kind: str) -> None:
    dataset = dataclasses.replace(small, max_ratio=ratio)
    assert dataset.flaw(Example("1", "train", {"source": "a", "target": "abcd"}, "here"))[0] == kind


@pytest.fixture
def small(tmp_path: Path) -> ParallelText:
    bad_pairs.tables(tmp_path / "data")
    return ParallelText(path=str(tmp_path / "data"), max_tokens=MOST)


def in_batches(run: Any, split: Split, known: Learned, training: bool = True) -> Data:
    columns = columns_of(run)
    return batched(run, columns, encoded(columns, split, known), known, training)


@pytest.mark.parametrize("joint", [True, False])
def test_tokenizers_of_both_languages_or_one_of_each(joint: bool, small: ParallelText, tmp_path: Path) -> None:
    run = run_of(small, tokenizer=SentencePiece(vocab_size=45, joint=joint))
    found = prepare(small, tmp_path)
    known = learned(run, found, tmp_path / "run")
    models = [file.relative_to(tmp_path / "run/tokenizer") for file in (tmp_path / "run").rglob("*.model")]
    assert sorted(str(model.parent) for model in models) == (["."] if joint else ["source", "target"])
    assert (known.inputs, known.outputs) == (45, 45) == (known.input.size, known.target.size)
    assert known.features == {}
    source, target = bad_pairs.TRAIN[1]
    assert known.target.decode(known.target.encode(target)) == target
    assert known.input.decode(known.input.encode(source)) == source
    assert (known.target.encode(source) == known.input.encode(source)) == joint


def test_separate_vocabularies_may_differ_in_size(small: ParallelText, tmp_path: Path) -> None:
    found = prepare(small, tmp_path)
    known = learned(run_of(small, tokenizer=WordsSpec(joint=False)), found, tmp_path / "run")
    sides = [{word for pair in GOOD["train"] for word in pair[side].split()} for side in (0, 1)]
    assert (known.inputs, known.outputs) == (len(sides[0]) + 1, len(sides[1]) + 1)
    assert known.input.words != known.target.words


def test_characters_that_a_tokenizer_lacks_become_a_note(small: ParallelText, tmp_path: Path) -> None:
    with (Path(small.path or "") / "test.tsv").open("ab") as stream:
        stream.write("a Ω man\tein Mann\n✓ a tree\tein Ωß Baum ^\n".encode())
    notes = both_stages(run_of(small), tmp_path).report.notes
    unknown = "texts have characters unknown to the tokenizer:"
    assert [note.partition(" (")[0] for note in notes] == [f"test: 2 en {unknown} 'Ω'", f"test: 1 de {unknown} '^'"]
    assert "'✓' (U+2713 CHECK MARK)" in notes[0]


def test_a_model_with_fewer_positions_bounds_the_tokens(small: ParallelText, tmp_path: Path) -> None:
    found = prepare(small, tmp_path)
    run = run_of(small, model=SimpleNamespace(longest=4))
    with pytest.raises(DataError) as caught:
        usable(run, columns_of(run), found, learned(run, found, tmp_path / "run"))
    long = [pair for pairs in GOOD.values() for pair in pairs if max(len(text.split()) for text in pair) > 3]
    assert len(caught.value.problems) == len(long) + 1
    assert "4 tokens, expected at most 3 (model.max_positions - 1)" in caught.value.problems[0]


def test_a_sentence_that_the_tokenizer_knows_nothing_of_is_bad(small: ParallelText, tmp_path: Path) -> None:
    with (Path(small.path or "") / "val.tsv").open("ab") as stream:
        stream.write(b"nothing known\tein Baum\n")
    with pytest.raises(
        DataError, match=r"val.tsv, line 4: no tokens: en: the tokenizer has no token for 'nothing known'"
    ):
        both_stages(run_of(small), tmp_path)


def test_the_lines_of_a_pipe_are_inputs(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("the old man\nthe red house\n",))
    writer.start()
    lines, file = _input_lines(str(pipe))
    assert not isinstance(lines, Problem) and list(lines) == ["the old man", "the red house"] and file == str(pipe)
    writer.join()
    assert _input_lines(str(tmp_path)) == ([str(tmp_path)], "")
    assert _input_lines("a\0b") == (["a\0b"], "")


def test_a_target_that_the_tokenizer_knows_nothing_of_is_scored(small: ParallelText, tmp_path: Path) -> None:
    with (Path(small.path or "") / "val.tsv").open("ab") as stream:
        stream.write(b"the old man\tgar nichts\n")
    run = run_of(small)
    found = both_stages(run, tmp_path)
    validation = found.splits["validation"]
    assert validation.references[-1] == "gar nichts" and not len(validation.target.tokens[-1])
    train = dataclasses.replace(validation, name="train")
    assert [flaw.kind for flaw in run.task.unfit(run, train, None)] == ["no tokens"]


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
    found = prepare(dataset, tmp_path)
    known = learned(run, found, tmp_path / "run")
    kept = usable(run, columns_of(run), found, known).splits["train"]
    assert len(kept) == 6 and kept.input.texts[0] == "the red house"
    sides = {side: dataclasses.replace(getattr(kept, side), tokens=None) for side in ("input", "target")}
    bare = dataclasses.replace(kept, **sides)
    one, other = (in_batches(run, split, known).collator(np.arange(6), 0) for split in (kept, bare))
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], name)


def test_the_plan_counts_tokens_of_the_longer_side_with_the_end(small: ParallelText, tmp_path: Path) -> None:
    run = run_of(small)
    found = prepare(small, tmp_path)
    known = learned(run, found, tmp_path / "run")
    data = in_batches(run, found.splits["train"], known)
    expected = [max(len(en.split()), len(de.split()) + 1) for en, de in bad_pairs.TRAIN]
    assert data.plan.lengths.tolist() == expected
    for epoch in range(3):
        batches = data.plan.epoch(epoch)
        assert sorted(np.concatenate(batches)) == list(range(6))
        assert all(len(batch) * data.plan.lengths[batch].max() <= 12 for batch in batches)


def test_a_batch_has_the_fields_of_translation(small: ParallelText, tmp_path: Path) -> None:
    run = run_of(small)
    found = prepare(small, tmp_path)
    known = learned(run, found, tmp_path / "run")
    collator = pickle.loads(pickle.dumps(in_batches(run, found.splits["train"], known).collator))
    batch = collator(np.array([3, 0, 5]), 7)
    assert {name: (array.ndim, array.dtype) for name, array in batch.items()} == {
        name: (len(axes), np.dtype(kind)) for name, (axes, kind) in batch_fields(columns_of(run), "training").items()
    }
    assert batch["example"].tolist() == [3, 0, 5]
    for row, example in enumerate((3, 0, 5)):
        for name, text in zip(("source", "tokens"), bad_pairs.TRAIN[example], strict=True):
            lengths = batch["source_lengths" if name == "source" else "token_lengths"]
            assert lengths[row] == len(text.split())
            assert known.target.decode(batch[name][row, : lengths[row]]) == text
            assert not batch[name][row, lengths[row] :].any()
    assert 0 not in known.target.encode(" ".join(bad_pairs.TRAIN[0]))  # the boundary


def test_an_empty_split_has_no_batches(small: ParallelText, tmp_path: Path) -> None:
    run = run_of(small)
    found = prepare(small, tmp_path)
    known = learned(run, found, tmp_path / "run")
    data = in_batches(run, found.splits["validation"].select([]), known, False)
    assert len(data.plan) == 0


def test_given_lines(small: ParallelText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(small)
    known = learned(run, prepare(small, tmp_path), tmp_path / "run")
    (tmp_path / "lines.txt").write_bytes(b"\xef\xbb\xbfthe red house\r\n\r\nshe sleeps\r\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a  green tree\nb\0d\n")))
    inputs = ["the old man", str(tmp_path / "lines.txt"), "-", "house " * 21, "x" * 5000]
    (asked,) = given(run, inputs, known, tmp_path)
    split, bad = asked.split, asked.problems
    assert split.input.texts == ["the old man", "the red house", "she sleeps", "a green tree", "house " * 20 + "house"]
    assert split.ids == [
        "input 1",
        f"{tmp_path}/lines.txt, line 1",
        f"{tmp_path}/lines.txt, line 3",
        "standard input, line 1",
        "input 4",
    ]
    assert split.target is None
    assert [(place, problem.where, problem.kind) for place, problem in bad.items()] == [
        (5, "standard input, line 2", "control character"),
        (7, "input 5", "no tokens"),
    ]
    assert asked.owners == [0, 1, 3, 4, 6]  # without a blank line
    assert asked.notes == ["input 4: 21 tokens, cut to the first 20 (dataset.max_tokens)"]
    data = batched(run, columns_of(run), split, known, False)
    batch = data.collator(np.arange(5), 0)
    assert batch.keys() == batch_fields(columns_of(run), "prediction").keys()
    assert batch["source_lengths"].tolist() == [3, 3, 2, 3, 20]


@pytest.mark.parametrize(
    "text, sources, blank, kinds",
    [
        (b"", [], [], []),
        (b"\n", [], [0], []),
        (b"\n the man \n \t\nshe sleeps\n\n", ["the man", "she sleeps"], [0, 2, 4], []),
        (b"b\0d\n\nshe sleeps", ["she sleeps"], [1], ["control character"]),
        ("she".encode("utf-16"), [], [], None),  # nobody knows how many lines it has
    ],
)
def test_standard_input_is_read_like_a_file(
    text: bytes,
    sources: list[str],
    blank: list[int],
    kinds: list[str] | None,
    small: ParallelText,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_of(small)
    known = learned(run, prepare(small, tmp_path), tmp_path / "run")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    (tmp_path / "lines.txt").write_bytes(text)
    for name in ("-", str(tmp_path / "lines.txt")):
        if kinds is None:
            with pytest.raises(DataError, match=f"{'standard input' if name == '-' else name}: not UTF-8"):
                given(run, ["she", name], known, tmp_path)
            continue
        (asked,) = given(run, [name], known, tmp_path)
        assert asked.split.input.texts == sources
        assert [i for i in range(len(asked.names)) if i not in asked.owners and i not in asked.problems] == blank
        assert [problem.kind for problem in asked.problems.values()] == kinds
