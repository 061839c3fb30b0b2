"""``check=true``: the description of a run's data, its page, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.made import FOLDERS, WORDS, pair_folder, shard_folder, tone_folder, tones
from toolkit.cli import check as command
from toolkit.cli import run as cli
from toolkit.config import process, schema
from toolkit.data.description import Description, Histogram, Sample
from toolkit.data.split import Split
from toolkit.errors import ConfigError
from toolkit.reports import data
from toolkit.reports.survey import Part, Survey, survey
from toolkit.runs import start
from toolkit.sweeps import plan

RECIPES = {"speech": "asr", "translation": "translation", "images": "image_classification"}
SMALL = ("tokenizer.vocab_size=20", "model=transformer_tiny")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test a cache and a working folder, and undo what a command does to its process."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(process._Finder, "hidden", frozenset())


def arguments(domain: str, folder: Path, *more: str) -> list[str]:
    dataset = more[0] if more and more[0].startswith("dataset=") else f"dataset={FOLDERS[domain][0]}"
    small = SMALL if domain == "translation" else ()
    return [f"recipe={RECIPES[domain]}", dataset, f"dataset.path={folder}", *small, "check=true", *more]


def surveyed(domain: str, folder: Path, *more: str) -> Survey:
    return survey(schema.check(arguments(domain, folder, *more)))


def facts(result: Survey, split: str = "train") -> dict[str, str]:
    place = [part.split.name for part in result.parts].index(split)
    return {label: cells[place] for label, cells in result.table()}


@pytest.mark.parametrize("domain", FOLDERS)
def test_the_command_describes_without_a_framework_or_a_run(
    domain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = FOLDERS[domain][1](tmp_path / "data"), set(sys.modules)
    monkeypatch.setitem(process.FRAMEWORKS, "torch", ("torch_that_is_not_there",))
    assert cli.main(arguments(domain, folder)) == 0
    frameworks = set().union(*process.FOREIGN.values())
    assert not {name.partition(".")[0] for name in set(sys.modules) - before} & frameworks
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{RECIPES[domain]}: ") and f"path={folder}" in out[0]
    assert any(line.split() == ["examples", "24", "6", "6"] for line in out)
    page = Path(out[-1])
    assert page.match(f"outputs/checks/{RECIPES[domain]}/*/check.html") and list(page.parent.iterdir()) == [page]
    media = {"speech": "data:audio/flac", "translation": "data:image/png", "images": "data:image/png"}
    text = page.read_text("utf-8")
    assert media[domain] in text and "usable" in text and "http" not in text


def test_two_checks_of_the_same_second_have_two_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = FOLDERS["images"][1](tmp_path / "data")
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    assert [cli.main(arguments("images", folder)) for _ in range(2)] == [0, 0]
    assert {page.parent.name for page in tmp_path.glob("outputs/checks/*/*/check.html")} == {"now", "now_2"}


def test_speech_is_described_in_hours_words_and_characters(tmp_path: Path) -> None:
    folder = tone_folder(tmp_path / "data")
    for i, text in enumerate(["abba zz", "abba zz"]):
        soundfile.write(folder / f"test/extra{i}.wav", tones("abba ba", 99 + i), 16000)
        with (folder / "test/metadata.csv").open("a") as file:
            file.write(f"extra{i}.wav,{text}\n")
    result = surveyed("speech", folder, "dataset.on_bad=drop")
    train = facts(result)
    letters = [len(text) for text in _transcripts(folder / "train")]
    assert train["audio: hours"] == f"{sum(letters) * 0.12 / 3600:.2f}"
    shortest, longest = min(letters) * 0.12, max(letters) * 0.12
    assert train["audio: seconds, min / median / 95 % / max"].startswith(f"{shortest:.1f} / ")
    assert train["audio: seconds, min / median / 95 % / max"].endswith(f" / {longest:.1f}")
    assert train["text: words"] == str(sum(len(text.split()) for text in _transcripts(folder / "train")))
    assert train["text: vocabulary"] == "5 tokens" and train["text: different characters"] == "4"
    assert facts(result, "test")["text: repeated in the split"] == "1"
    assert int(train["batches"]) >= 1 and train["padding of the batches"].endswith(" %")
    assert "text: characters that train lacks: z (4)" in data.as_text(result)


def _transcripts(folder: Path) -> list[str]:
    return [line.split(",")[1] for line in (folder / "metadata.csv").read_text().splitlines()[1:]]


def test_repeated_pairs_and_odd_ratios_are_found(tmp_path: Path) -> None:
    folder = pair_folder(tmp_path / "data")
    first = (folder / "train.tsv").read_text().splitlines()[1]
    with (folder / "test.tsv").open("a") as file:
        file.write(f"{first}\nab\t{' '.join(WORDS * 3)}\n")
    result = surveyed("translation", folder)
    assert facts(result, "test")["both: in train too"] == "1"
    assert facts(result, "train")["both: in train too"] == ""
    test = result.parts[-1]
    assert test.split.input.texts[test.extremes()[-1]] == "ab"


def test_classes_are_counted_by_split(tmp_path: Path) -> None:
    folder = FOLDERS["images"][1](tmp_path / "data", train=25)
    result = surveyed("images", folder)
    train = facts(result)
    assert (train["label: classes"], train["label: largest class"], train["image: size"]) == (
        "3", "lying: 9", "16 x 16 pixels, colour",
    )  # fmt: skip
    assert "9 / 2 / 2" in data.as_page(result)


def test_refused_data_is_described_listed_and_refused_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tone_folder(tmp_path / "data")
    for name in range(6):
        (folder / f"train/{name}.wav").write_bytes(b"RIFF")
    words = arguments("speech", folder, f"run_dir={tmp_path / 'here'}")
    assert cli.main(words) == 2
    out, error = capsys.readouterr()
    assert error.startswith("6 problems with the data for dataset AudioFolder:\n") and "train/0.wav" not in out[:200]
    assert "left out: 6 " in out and out.splitlines()[-1] == str(tmp_path / "here/check.html")
    page = (tmp_path / "here/check.html").read_text()
    assert "refused" in page and "6 problems with the data" in page and "audio: hours" in page


def test_data_that_cannot_be_read_has_a_page_of_its_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    assert cli.main(arguments("speech", tmp_path / "data")) == 2
    out, error = capsys.readouterr()
    assert str(tmp_path / "data") in error and "refused" in Path(out.strip()).read_text()


def test_a_stream_is_described_by_its_sample(tmp_path: Path) -> None:
    folder = shard_folder(tmp_path / "data", "translation", "tar", [20, 20])
    more = ("dataset=pair_shards", "dataset.streaming=true", "dataset.lanes=2", "dataset.sample=10")
    result = surveyed("translation", folder, *more, "trainer.max_steps=5")
    assert facts(result)["examples"] == "10 (sample of the stream)"
    assert facts(result, "test")["examples"] == "6" and "batches" not in {label for label, t in result.table() if t[0]}
    assert "the first 10 examples of the stream" in data.as_page(result)


def test_markup_and_bytes_that_are_no_text_are_shown_as_they_are(tmp_path: Path) -> None:
    folder = pair_folder(tmp_path / "data")
    with (folder / "train.tsv").open("a") as file:
        file.write("<script>alert(1)</script>\t&amp; x\N{COMBINING RING BELOW}b\n")
    page = data.as_page(surveyed("translation", folder, "tokenizer.vocab_size=24"))
    assert "<script>" not in page and "&lt;script&gt;" in page and "&amp;amp;" in page
    assert "COMBINING RING BELOW" in page
    where = f"run_dir={tmp_path}/deep/er"
    path = command._write(schema.check([*arguments("translation", folder), where]), [where], "\udcff")
    assert path == tmp_path / "deep/er/check.html" and path.read_bytes() == rb"\udcff"


def test_the_examples_shown_go_from_the_smallest_to_the_largest() -> None:
    sizes = Histogram("size", "s", np.array([3.0, 1.0, 2.0, 9.0, 5.0]))
    part = Part(Split("train", list("abcde"), list("abcde"), None), Description(sizes=sizes), Description(), {}, {})
    assert part.shown(3) == [1, 0, 3] and part.shown(9) == [1, 2, 0, 4, 3]
    assert part.ratio() is None and part.extremes() == []


def test_fields_are_named_as_on_the_command_line_and_long_texts_are_cut() -> None:
    assert (data._value(["lower", "nfkc"]), data._value(0.5)) == ("[lower,nfkc]", "0.5")
    assert data._caption([Sample("a" * 400), Sample(media=b"x"), Sample("b")]) == f"{'a' * 300} ... \u2192 b"


@pytest.mark.parametrize("key", ["resume", "evaluate"])
def test_a_check_is_of_data_alone(key: str, tmp_path: Path) -> None:
    words = arguments("speech", tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("seed: 1")
    with pytest.raises(ConfigError, match=f"check: true is not supported with {key}; set one of them"):
        schema.check([*words, f"{key}={tmp_path / 'run'}"])


def test_a_check_is_no_sweep_and_no_training(tmp_path: Path) -> None:
    words = arguments("speech", tmp_path)
    with pytest.raises(ConfigError) as caught:
        plan.check([*words[:3], "check=true,false"], [])
    assert caught.value.problems == [
        "check: several values, expected one for the whole sweep",
        "check: true is not supported in a sweep; check the data of one run first",
    ]
    with pytest.raises(ConfigError, match=r"check: true is not supported in toolkit\.train"):
        start.train(words)
