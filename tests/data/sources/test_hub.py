"""Repositories of the Hugging Face hub: the same examples whole and as a stream; what is missing is named."""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import hub
from tests.support.corpora import Silent, prepare
from tests.support.pair_runs import GOOD, nested
from toolkit.data.example import SPLITS, Example, File
from toolkit.data.sources import hub as hub_source
from toolkit.datasets import common_voice, imagenet, librispeech, parallel_hub, speech_commands
from toolkit.errors import DataError


def of_shards(dataset, split, cache):
    found = dataset.shards(split, cache)
    return [dataset.example(split, row) for number in range(len(found.files)) for row in found.rows(number)]


def as_a_whole(examples, split):
    """Ids of files, which are the same in a stream, and all texts."""
    there = [example for example in examples if example and example.split == split]
    files = [any(isinstance(value, File) for value in e.values.values()) for e in there]
    names = [e.id if has_file else "" for e, has_file in zip(there, files, strict=True)]
    texts = [[value for value in e.values.values() if not isinstance(value, File)] for e in there]
    return list(zip(names, texts, strict=True))


def librispeech_of(folder):
    rows = [{"id": f"1-2-{i}", "text": "A TEXT"} for i in range(3)]
    parts = dict.fromkeys(("train.100", "validation", "test"), rows)
    path = hub.recordings(folder, "clean", parts, {"id": hub.STRING, "text": hub.STRING})
    return functools.partial(librispeech.LibriSpeech, path=str(path))


def speech_commands_of(folder):
    parts = {s: [{"file": f"yes/{s}_{i}.wav", "label": i} for i in range(3)] for s in SPLITS}
    label = {"_type": "ClassLabel", "names": ["yes", "_silence_", "no"]}
    path = hub.recordings(folder, "v0.02", parts, {"file": hub.STRING, "label": label})
    return functools.partial(speech_commands.SpeechCommands, path=str(path))


def wmt14_of(folder):
    path = hub.repository(folder, "de-en", {name: nested(pairs) for name, pairs in GOOD.items()})
    return functools.partial(parallel_hub.WMT14, repository=str(path))


def multi30k_of(folder):
    parts = {name: [{"en": en, "de": de} for en, de in pairs] for name, pairs in GOOD.items()}
    return functools.partial(parallel_hub.Multi30k, repository=str(hub.repository(folder, "default", parts)))


@pytest.mark.parametrize("made_in", [librispeech_of, speech_commands_of, wmt14_of, multi30k_of])
def test_a_repository_of_the_hub_is_read_as_a_stream(made_in, tmp_path):
    made_of = made_in(tmp_path / "hub")
    dataset, streamed = made_of(), made_of(streaming=True)
    whole = list(dataset.examples(tmp_path / "cache", None))
    assert as_a_whole(whole, "train")
    assert as_a_whole(of_shards(streamed, "train", tmp_path / "cache"), "train") == as_a_whole(whole, "train")
    kept = list(streamed.examples(tmp_path / "cache", None))
    assert {example.split for example in kept} == {"validation", "test"}
    assert as_a_whole(kept, "test") == as_a_whole(whole, "test")


def test_imagenets_last_files_are_set_apart_from_a_stream(tmp_path):
    source = hub.images(tmp_path / "hub", {"train": 8, "validation": 2}, "image", {"label": ["tench", "goldfish"]})
    for i in range(3):
        shutil.copy(source / "train.parquet", source / f"train-{i}.parquet")
    card = source / "README.md"
    card.write_text(card.read_text().replace("path: train.parquet", "path: train-*.parquet"))
    dataset = imagenet.ImageNet(path=str(source), size=8, streaming=True)
    assert [len(dataset.shards(split, tmp_path).files) for split in SPLITS] == [2, 1, 1]
    counts = Counter(example.split for example in dataset.examples(tmp_path / "cache", None))
    assert counts == {"validation": 8, "test": 2}
    assert {e.values["label"] for e in of_shards(dataset, "train", tmp_path)} == {"tench", "goldfish"}
    whole = replace(dataset, validation_fraction=0.0)
    assert [len(whole.shards(split, tmp_path).files) for split in SPLITS] == [3, 0, 1]


def test_nulls_and_classes_without_a_name_are_named(tmp_path):
    rows = [{"id": "1", "text": None}, {"id": None, "text": "A"}, {"id": "3", "text": "B"}]
    parts = dict.fromkeys(("train.100", "validation", "test"), rows)
    path = hub.recordings(tmp_path / "speech", "clean", parts, {"id": hub.STRING, "text": hub.STRING})
    found = list(librispeech.LibriSpeech(path=str(path)).examples(tmp_path / "cache", None))[:3]
    assert [str(item).rpartition("train.100, ")[2] for item in found[:2]] == [
        "row 0: missing field: found null in text, expected a value",
        "row 1: missing field: found null in id, expected a value",
    ]
    assert found[2].id == "3"

    label = {"_type": "ClassLabel", "names": ["yes", "no"]}
    parts = {split: [{"file": f"{split}.wav", "label": -1}] for split in SPLITS}
    path = hub.recordings(tmp_path / "commands", "v0.02", parts, {"file": hub.STRING, "label": label})
    problem, *_ = speech_commands.SpeechCommands(path=str(path)).examples(tmp_path / "cache", None)
    assert "bad label: found class -1, expected 0 to 1 in label" in str(problem)


def test_an_unreachable_hub_and_missing_columns_are_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = hub.recordings(tmp_path / "hub", "en", {"train": [{"path": "a"}]}, {"path": hub.STRING})
    with pytest.raises(DataError, match="found the columns audio, path, expected also sentence"):
        prepare(common_voice.CommonVoice(path=str(source)), tmp_path / "cache")

    monkeypatch.setattr(hub_source, "_obstacle", lambda source: "the hub is down; check the network")
    with pytest.raises(DataError) as caught:
        prepare(librispeech.LibriSpeech(), tmp_path / "cache")
    assert str(caught.value) == (
        "openslr/librispeech_asr clean train.100: not in the cache, and the hub is down; check the network, or "
        "set dataset.path=FOLDER to a local copy"
    )


def test_a_local_copy_of_the_hubs_export_has_folders_of_splits(tmp_path: Path) -> None:
    flat = hub.repository(tmp_path / "flat", "iwslt2017-de-en", {n: nested(pairs) for n, pairs in GOOD.items()})
    for name in GOOD:
        folder = tmp_path / "copy/iwslt2017-de-en" / name
        folder.mkdir(parents=True)
        shutil.copy(flat / f"{name}.parquet", folder / "0000.parquet")
    dataset = parallel_hub.IWSLT(repository=str(tmp_path / "copy"))
    examples = [example for example in dataset.examples(tmp_path / "cache", Silent()) if isinstance(example, Example)]
    assert Counter(example.split for example in examples) == {name: len(pairs) for name, pairs in GOOD.items()}


@pytest.mark.parametrize(
    "kind", [speech_commands.SpeechCommands, librispeech.LibriSpeech, common_voice.CommonVoice, imagenet.ImageNet]
)
def test_a_path_where_nothing_is_is_not_looked_up_on_the_hub(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_source, "load", None)  # nor is the library asked
    monkeypatch.chdir(tmp_path)
    dataset = kind(path="my/copy")
    message = f"dataset.path=my/copy: found nothing at {tmp_path}/my/copy, expected a local copy of "
    for read in (lambda: list(dataset.examples(tmp_path, None)), lambda: dataset.shards("train", tmp_path)):
        with pytest.raises(DataError) as caught:
            read()
        assert caught.value.problems[0].startswith(message) and len(caught.value.problems) == 1
