"""Bad sentence pairs are refused with a message that names the line, or dropped with a count."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import bad_data, bad_pairs
from tests.support.corpora import both_stages, prepare
from tests.support.pair_runs import GOOD, MOST, languages_of, run_of, texts
from tests.support.refusals import refuse
from toolkit.data.split import Corpus
from toolkit.datasets.parallel_text import ParallelText
from toolkit.errors import DataError


def english_first(found: Corpus) -> dict[str, list[tuple[str, str]]]:
    turn = -1 if languages_of(found.splits["train"]) == ("de", "en") else 1
    return {name: [pair[::turn] for pair in pairs] for name, pairs in texts(found).items()}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bad_data.Case]:
    return {case.name: case for case in bad_pairs.make(tmp_path_factory.mktemp("bad"))}


@pytest.mark.parametrize("name", bad_pairs._CASES)
def test_refused_with_a_message(name: str, cases: dict[str, bad_data.Case], tmp_path: Path) -> None:
    case = cases[name]
    with pytest.raises(DataError) as caught:
        both_stages(run_of(ParallelText(path=str(case.path), max_tokens=MOST, **case.fields)), tmp_path)
    for fragment in case.fragments:
        assert fragment in str(caught.value)
    assert caught.value.headline.startswith("1 problem "), str(caught.value)


@pytest.mark.parametrize("name", bad_pairs._CASES)
def test_dropped_with_a_count(name: str, cases: dict[str, bad_data.Case], tmp_path: Path) -> None:
    case = cases[name]
    run = run_of(ParallelText(path=str(case.path), on_bad="drop", max_tokens=MOST, **case.fields))
    if not case.droppable:
        with pytest.raises(DataError):
            both_stages(run, tmp_path)
        return
    found = both_stages(run, tmp_path)
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
        prepare(ParallelText(path=str(tmp_path / "data")), tmp_path)
    found = [line.split(": ")[:2] for line in caught.value.problems[:-1]]
    where = "train.de and train.en, line"
    kinds = ("empty text", "control character", "byte-order mark")  # German is the source, so it comes first
    assert found == [[f"{where} {n}", kind] for n, kind in zip((7, 8, 10), kinds, strict=True)]
    assert "dataset.on_bad=drop" in caught.value.problems[-1]


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_every_kind_is_refused_by_the_command_line(
    backend: str, cases: dict[str, bad_data.Case], tmp_path: Path
) -> None:
    """Each backend does half of them: the data is refused before a framework is loaded."""
    chosen = list(cases.values())[("torch", "tf").index(backend) :: 2]
    fixed = ["recipe=translation", f"backend={backend}", "dataset=parallel_text", "tokenizer.vocab_size=60"]
    words = [
        [
            *(*fixed, "dataset.max_tokens=28", f"dataset.path='{case.path}'", f"run_dir={tmp_path}/{number}"),
            *(f"dataset.{name}={value}" for name, value in case.fields.items()),
        ]
        for number, case in enumerate(chosen)
    ]
    refused = refuse(words, tmp_path / "cache")
    assert refused.loaded == []
    for number, (case, (code, text)) in enumerate(zip(chosen, refused.found, strict=True)):
        assert code == 2, (case.name, text)
        assert "Traceback" not in text, (case.name, text)
        for fragment in case.fragments:
            assert fragment in text, (case.name, fragment, text)
        assert not (tmp_path / str(number) / "checkpoints").exists()
