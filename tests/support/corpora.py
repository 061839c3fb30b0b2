"""Corpora of a dataset, and the little of a run that their two stages need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.data import pipeline, questions
from toolkit.data.columns.column import Columns, columns_of
from toolkit.data.questions import Questions
from toolkit.data.source import Source
from toolkit.data.split import Corpus, Learned
from toolkit.features.image.spec import Image
from toolkit.features.log_mel.spec import LogMel
from toolkit.tasks.classification.spec import Classification
from toolkit.tasks.ctc.spec import CTC
from toolkit.tasks.seq2seq.spec import Seq2Seq
from toolkit.tokenizers.characters.spec import Characters
from toolkit.training.spec import Trainer

TASKS = {task.input: task for task in (CTC, Classification, Seq2Seq)}


class Silent:
    """Stands for rich's progress."""

    def add_task(self, *_: Any, **__: Any) -> int:
        return 0

    update = advance = add_task


class Words:
    """A tokenizer of whole words: those of the texts given."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.words = ["", *sorted({word for text in texts for word in text.split()})]
        self.size = len(self.words)

    def encode(self, text: str) -> list[int]:
        return [self.words.index(word) for word in text.split() if word in self.words]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(self.words[i] for i in ids)

    def unknown(self, text: str) -> list[str]:
        known = " " + "".join(self.words)
        return [c for c in text if c not in known]


@dataclass(frozen=True)
class WordsSpec:
    """Learns :class:`Words`."""

    joint: bool = True

    def learn(self, texts: Sequence[str], folder: Path) -> None:
        (folder / "words.json").write_text(json.dumps(list(texts)))

    def load(self, folder: Path) -> Words:
        return Words(json.loads((folder / "words.json").read_text()))


def run_of(dataset: Source, **changed: Any) -> Any:
    """A run on the dataset: the specs that its two stages look at, those in ``changed`` in the place of the usual."""
    source = next(iter(dataset.columns.values())).kind
    usual: dict[str, dict[str, Any]] = {
        "audio": {"features": LogMel(), "tokenizer": Characters()},
        "image": {"features": Image(), "tokenizer": None},
        "text": {"features": None, "tokenizer": WordsSpec()},
    }
    parts = {
        "dataset": dataset,
        "task": TASKS[source](),
        "model": SimpleNamespace(longest=None, output_length=lambda frames: frames // 4),
        "trainer": Trainer(batch_budget=None, batch_examples=3),
        "seed": 5,
        "evaluate": None,
    }
    return SimpleNamespace(**parts | usual[source] | changed)


def prepare(dataset: Source, cache: Path) -> Corpus:
    """The first stage."""
    return pipeline.prepare(dataset, columns_of(run_of(dataset)), cache)


def learned(run: Any, corpus: Corpus, folder: Path) -> Learned:
    """Learn from the corpus into a folder, and load what was learned."""
    columns: Columns = columns_of(run)
    pipeline.learn(columns, corpus.splits["train"], folder)
    return pipeline.load(columns, folder)


def both_stages(run: Any, folder: Path) -> Corpus:
    """Both stages, with what is learned in between."""
    columns = columns_of(run)
    corpus = pipeline.prepare(run.dataset, columns, folder / "cache")
    return pipeline.usable(run, columns, corpus, learned(run, corpus, folder / "learned"))


def given(run: Any, inputs: Iterable[str], known: Learned, cache: Path) -> list[Questions]:
    """Prepare a user's inputs for prediction."""
    columns = columns_of(run)
    return questions.prepare(run, columns, list(columns.input.questions(inputs)), known, cache)


def sizes(corpus: Corpus) -> tuple[int, ...]:
    return tuple(len(split) for split in corpus.splits.values())


def no_decoding(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Let the module's ``decode`` fail."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("decoded although it is in the cache")

    monkeypatch.setattr(module, "decode", refuse)
