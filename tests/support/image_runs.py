"""What the tests of pictures share: a dataset of a folder, a run around it, what the splits hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from toolkit.data import images
from toolkit.data.corpus import Corpus
from toolkit.datasets.image_folder import ImageFolder
from toolkit.features.image.spec import Image
from toolkit.tokenizers.labels.spec import Labels
from toolkit.training.spec import Trainer


def folder(path: Path, **fields: Any) -> ImageFolder:
    return ImageFolder(path=str(path), **fields)


def sizes(corpus: Corpus) -> tuple[int, ...]:
    return tuple(len(split) for split in corpus.splits.values())


def all_pictures(split: Any) -> np.ndarray:
    return split.pictures(np.arange(len(split)))


def run_of(dataset: Any, **features: Any) -> Any:
    trainer = Trainer(batch_budget=None, batch_examples=3)
    return SimpleNamespace(dataset=dataset, tokenizer=Labels(), features=Image(**features), trainer=trainer, seed=5)


def learned(run: Any, corpus: Corpus, path: Path) -> Any:
    for name in ("tokenizer", "features"):
        (path / name).mkdir(parents=True)
    images.learn(run, corpus.splits["train"], path)
    return images.load(run, path)
