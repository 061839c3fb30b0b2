"""Bad data is refused with a message that names file, record, what was found and what was expected."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import bad_data, bad_input, corpora
from toolkit.data.columns.column import Flaw, columns_of
from toolkit.data.problems import LISTED
from toolkit.data.split import Corpus, encoded
from toolkit.datasets.audio_folder import AudioFolder
from toolkit.errors import DataError


def both_stages(path: Path, folder: Path, on_bad: str = "refuse") -> Corpus:
    dataset = AudioFolder(path=str(path), on_bad=on_bad)  # type: ignore[arg-type]
    return corpora.both_stages(corpora.run_of(dataset), folder)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bad_data.Case]:
    return {case.name: case for case in bad_input.make(tmp_path_factory.mktemp("bad"))}


def test_there_are_at_least_twenty_kinds(cases: dict[str, bad_data.Case]) -> None:
    assert len(cases) >= 20


@pytest.mark.parametrize("name", bad_input._CASES)
def test_refused_with_a_message(name: str, cases: dict[str, bad_data.Case], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        both_stages(cases[name].path, tmp_path)
    message = str(caught.value)
    for fragment in cases[name].fragments:
        assert fragment in message, message
    assert caught.value.code == 2
    assert caught.value.headline.startswith("1 problem "), message


@pytest.mark.parametrize("name", bad_input._CASES)
def test_dropped_with_a_count(name: str, cases: dict[str, bad_data.Case], tmp_path: Path) -> None:
    if not cases[name].droppable:
        with pytest.raises(DataError):
            both_stages(cases[name].path, tmp_path, "drop")
        return
    corpus = both_stages(cases[name].path, tmp_path, "drop")
    assert sum(corpus.report.dropped.values()) == 1
    assert sum(len(split) for split in corpus.splits.values()) in (11, 12)  # 11: a good recording became the bad one


def test_all_problems_at_once_and_good_ones_stay(tmp_path: Path) -> None:
    count = bad_input.make_all_in_one(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        both_stages(tmp_path / "data", tmp_path)
    assert caught.value.headline.startswith(f"{count} problems ")
    for name in ("empty.wav", "cut.wav", "half.flac", "mp3.wav", "page.wav", "nan.wav", "silent.wav", "gone.wav"):
        assert sum(name in line for line in caught.value.problems) == 1, name
    assert "dataset.on_bad=drop" in caught.value.problems[-1]
    dropped = both_stages(tmp_path / "data", tmp_path, "drop")
    assert sum(dropped.report.dropped.values()) == count
    assert {name: len(split) for name, split in dropped.splits.items()} == {"train": 8, "validation": 2, "test": 2}


def test_a_long_list_is_cut_and_the_rest_counted(tmp_path: Path) -> None:
    rows = bad_input.good_rows(tmp_path / "data")
    rows += [{"file_name": f"gone_{i}.wav", "transcription": "a", "split": "train"} for i in range(LISTED + 7)]
    bad_input.write_csv(tmp_path / "data", rows)
    with pytest.raises(DataError) as caught:
        both_stages(tmp_path / "data", tmp_path)
    assert len(caught.value.problems) == LISTED + 2
    assert "... and 7 more: 7 missing file" in caught.value.problems


def test_what_training_lacks_is_an_error_of_the_recogniser_in_evaluation(tmp_path: Path) -> None:
    rows = bad_input.good_rows(tmp_path / "data")
    test = [row for row in rows if row["split"] == "test"]
    test[0]["transcription"], test[1]["transcription"] = "groß", "bookkeeping " * 40  # too long for its frames
    bad_input.write_csv(tmp_path / "data", rows)
    corpus = both_stages(tmp_path / "data", tmp_path)
    assert corpus.splits["test"].references == ["groß", ("bookkeeping " * 40).strip()]
    assert any("test: 1 texts have characters unknown to the tokenizer: 'ß' (U+00DF" in n for n in corpus.report.notes)
    test[0]["transcription"] = "ß"
    bad_input.write_csv(tmp_path / "data", rows)
    split = both_stages(tmp_path / "data", tmp_path).splits["test"]
    assert split.references[0] == "ß" and len(split.target.tokens[0]) == 0


@pytest.mark.parametrize("stage, flaw", [("reading", ""), ("model", "bookkeeping " * 40)])
def test_a_few_flaws_of_single_examples_are_dropped_and_listed(stage: str, flaw: str, tmp_path: Path) -> None:
    rows = bad_input.good_rows(tmp_path / "data")
    bad_input.write_csv(tmp_path / "data", [rows[0] | {"transcription": flaw}, *rows[1:]])
    allowing, strict = (AudioFolder(path=str(tmp_path / "data"), max_dropped=share) for share in (0.13, 0.08))
    report = corpora.both_stages(corpora.run_of(allowing), tmp_path).report
    assert sum(report.dropped.values()) == 1 and "metadata.csv, line 2" in report.lines[0]
    with pytest.raises(DataError):
        corpora.both_stages(corpora.run_of(strict), tmp_path)
    bad_input.write_csv(tmp_path / "data", [row | {"transcription": flaw} for row in rows[:2]] + rows[2:])
    with pytest.raises(DataError, match=r"more than the 1 of train that dataset\.max_dropped allows"):
        corpora.both_stages(corpora.run_of(allowing), tmp_path)


def test_ctc_needs_a_frame_for_every_repeat(tmp_path: Path) -> None:
    rows = bad_input.good_rows(tmp_path / "data")
    rows[0]["transcription"] = "bookkeeper"  # ten tokens and three repeats
    bad_input.write_csv(tmp_path / "data", rows)
    run = corpora.run_of(AudioFolder(path=str(tmp_path / "data")))
    found = corpora.prepare(run.dataset, tmp_path / "cache")
    known = corpora.learned(run, found, tmp_path / "learned")
    split = encoded(columns_of(run), found.splits["train"], known)

    def flaws_with(count: int) -> list[Flaw]:
        def few(frames: np.ndarray) -> np.ndarray:
            return np.array([count if i == 0 else 99 for i in range(len(frames))])

        run.model = SimpleNamespace(longest=None, output_length=few)
        return list(run.task.unfit(run, split, known))

    assert not flaws_with(13)
    (flaw,) = flaws_with(12)
    assert flaw.position == 0
    assert "12 output frames, CTC needs 13 (10 tokens, 3 repeats)" in flaw.message
