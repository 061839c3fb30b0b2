"""Parts that the tests of sentence pairs share: a run on them, the contents of the splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support import bad_pairs, corpora
from toolkit.data.split import Corpus, Split
from toolkit.training.spec import Trainer

MOST = 20  # tokens
GOOD = {"train": list(bad_pairs.TRAIN), "validation": list(bad_pairs.VALIDATION), "test": list(bad_pairs.TEST)}


def run_of(dataset: Any, **changed: Any) -> Any:
    return corpora.run_of(dataset, **{"trainer": Trainer(batch_budget=12, batch_examples=4), "seed": 0} | changed)


def texts(corpus: Corpus) -> dict[str, list[tuple[str, str]]]:
    return {
        name: list(zip(split.input.texts, split.target.texts, strict=True)) for name, split in corpus.splits.items()
    }


def languages_of(split: Split) -> tuple[str, str]:
    return split.input.language, split.target.language


def many_pairs(count: int = 400) -> list[tuple[str, str]]:
    """Pairs that share sentences, two or four of them."""
    return [(f"sentence {i // 2}", f"Satz {i // 4 if i % 8 < 4 else i}") for i in range(count)]


def single_file(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    path.write_bytes(bad_pairs.encoded(["en\tde", *map("\t".join, pairs)]))
    return path


def nested(pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Rows of the hub with a field for both languages, from pairs of English and German."""
    return [{"translation": {"de": de, "en": en}} for en, de in pairs]
