"""Normalisation of text by named steps."""

from __future__ import annotations

import pytest

from tests.support.bad_input import good_rows, write_csv
from tests.support.corpora import prepare
from toolkit.data.columns.text import Text
from toolkit.data.normalize import normalize, problems
from toolkit.datasets.audio_folder import AudioFolder


@pytest.mark.parametrize(
    "steps, text, expected",
    [
        ([], "It\N{RIGHT SINGLE QUOTATION MARK}s 5 — OK?", "It\N{RIGHT SINGLE QUOTATION MARK}s 5 — OK?"),
        (["lower"], "ÄRGER Straße", "ärger straße"),
        (["punctuation"], "“It\N{RIGHT SINGLE QUOTATION MARK}s” \N{EN DASH} rock-n-roll, C++…", "It's rock n roll C"),
        (["lower", "punctuation"], "Ça va, Loïc ? नमस्ते!", "ça va loïc नमस्ते"),
        (["nfkc"], "ﬁve \N{FULLWIDTH DIGIT FIVE}", "five 5"),
        (["numbers:en"], "in 1984 and 20", "in one thousand, nine hundred and eighty-four and twenty"),
        (["numbers:de", "punctuation"], "21 Tage", "einundzwanzig Tage"),
        (["whisper:en"], "Mr. Smith's colour, um, isn't £20.", "mister smith is color is not £20"),
        (["whisper"], "Ça va, Loïc?", "ça va loïc"),
    ],
)
def test_steps(steps: list[str], text: str, expected: str) -> None:
    assert normalize(text, steps).strip() == expected


@pytest.mark.parametrize("step, number", [("numbers:tr", 10**24), ("numbers:ru", 10**36), ("numbers:am", 1999)])
def test_a_number_that_the_library_cannot_write_stays(step: str, number: int) -> None:
    assert normalize(f"a {number} b", [step]) == f"a {number} b"


@pytest.mark.parametrize("step", ["upper", "numbers", "numbers:", "whisper:de", "lower:en", ""])
def test_an_unknown_step_is_refused(step: str) -> None:
    (message,) = problems(["lower", step])
    assert message.startswith(f"found {step!r}, expected one of lower, punctuation")
    dataset = AudioFolder(path="a", normalize=(step,))
    assert list(Text.conflicts(dataset)) == [("normalize", message)]


def test_a_language_without_numbers_is_refused() -> None:
    (message,) = problems(["numbers:tlh"])
    assert message.startswith("found 'numbers:tlh', expected a language of num2words: ") and " de, " in message


def test_transcripts_are_normalised_and_the_run_says_so(tmp_path) -> None:
    rows = good_rows(tmp_path / "data")
    rows[0]["transcription"] = "Don\N{RIGHT SINGLE QUOTATION MARK}t STOP, now!"
    write_csv(tmp_path / "data", rows)
    dataset = AudioFolder(path=str(tmp_path / "data"), normalize=("lower", "punctuation"))
    corpus = prepare(dataset, tmp_path / "cache")
    assert corpus.splits["train"].references[0] == "don't stop now"
    column = Text("text", "target", dataset, None)
    assert column.comparable("DON\N{RIGHT SINGLE QUOTATION MARK}T  stop") == "don't stop"
    values = corpus.splits["train"].target
    assert list(column._form(values.texts)) == ["8 transcripts, normalised by lower, punctuation"]
    plain = Text("text", "target", AudioFolder(path=str(tmp_path / "data")), None)
    (note,) = plain._form(["Don\N{RIGHT SINGLE QUOTATION MARK}t STOP, now!", "don't stop now"])
    assert note.startswith("1 of 2 transcripts have capitals or punctuation")
    assert list(plain._form(["don't stop now"])) == []


def test_a_text_of_which_nothing_is_left_is_a_problem(tmp_path) -> None:
    column = Text("text", "target", AudioFolder(path="a", normalize=("punctuation",)), None)
    assert column.check("...")[1:] == ("empty text", "nothing is left of '...' after dataset.normalize=[punctuation]")
