"""``dataset=multi30k``, ``tatoeba``, ``iwslt``, ``wmt14``: parallel corpora on the Hugging Face hub, through
``datasets``.

They are tested against a stand-in of the hub's interface; the hub itself is untested here. ``repository`` may be a
folder with a copy of the repository. ``dataset.path=FOLDER`` reads local text files instead, in one of the layouts of
:mod:`toolkit.datasets.parallel_text`. ``dataset.source`` and ``dataset.target`` select languages and direction.

- Multi30k (Elliott et al. 2016), ``bentrevett/multi30k``: image captions, English and German (local files: French
  and Czech too), 29,000 / 1,014 / 1,000. The images' licence is unclear; for research. The repository holds lines of
  JSON; the hub's export to Parquet is read, ``default/train/0000.parquet`` with the columns en and de. The splits and
  columns are those that public code uses; the names of the files were not verified.
- Tatoeba, ``sentence-transformers/parallel-sentences-tatoeba``: short everyday sentences, English and 47 languages, CC
  BY 2.0 FR. It has no official splits. Layout: a configuration for each pair, such as en-de, with a split train and the
  columns english and non_english, as sentence-transformers' own training scripts read it.
- IWSLT 2017 (Cettolo et al. 2017), ``IWSLT/iwslt2017``: transcripts of TED talks, CC BY-NC-ND. The
  repository holds a loading script, which is not run; the hub's export to Parquet is read,
  ``iwslt2017-de-en/train/0000.parquet`` with the column translation. Configurations, splits and column were verified
  with the script ``datasets/iwslt2017`` in https://github.com/huggingface/datasets.
- WMT 2014 (Bojar et al. 2014), ``wmt/wmt14``: news and parliament, English and Czech, German, French, Hindi or Russian;
  4.5 million pairs with German. Layout: configurations such as de-en, files ``de-en/train-00000-of-N.parquet`` with the
  column translation, as the repository's card declares them; the names of the files were not verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.data.sources import hub
from toolkit.data.sources.shards import Row, Shards
from toolkit.datasets import parallel_text
from toolkit.datasets.base import HubFields, PairDataset, pair
from toolkit.datasets.layouts import pairs
from toolkit.datasets.shards import pair_of

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

BLOCK = 10_000  # rows that are read at a time


@spec
class _Official(PairDataset, HubFields):
    """Base class of corpora with official splits, which can be streamed."""

    sharded: ClassVar[bool] = True

    path: str | None = option(None, "folder with the splits as text files; null: fetched from the hub")

    def check(self) -> Iterator[tuple[str, str]]:
        yield from PairDataset.check(self)
        if self.streaming and self.path:
            message = "text files are read as a whole; to stream files of your own, set dataset=pair_shards"
            yield "path", f"found {self.path} with dataset.streaming=true: {message}"

    def example(self, split: str, row: Row) -> Example | Problem:
        texts = row.fields.get("translation", row.fields)
        row = replace(row, fields={"source": texts.get(self.source), "target": texts.get(self.target)})
        return pair_of(split, row, (str(self.source), str(self.target)))


@spec
class Multi30k(_Official):
    """Image captions, with the official splits of 2016."""

    source: str = option("en", "language to translate from: en, de; local files: fr, cs")
    target: str = option("de", "language to translate to: en, de; local files: fr, cs")
    path: str | None = option(
        None, "folder with train, val and test in files for each language; null: fetched from the hub"
    )
    test: str = option("test_2016_flickr", "name of the test files in the folder")
    repository: str = option("bentrevett/multi30k", "repository on the hub")
    revision: str | None = option(hub.EXPORT, "branch, tag or commit of the repository; not used with a path")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        yield from all_splits(self, None, cache, (self.source, self.target))

    def shards(self, split: str, cache: Path) -> Shards:
        return hub.shards(self.repository, None, split, self.revision, cache, (self.source, self.target), None)


@spec
class Tatoeba(PairDataset, HubFields):
    """Short everyday sentences."""

    source: str = option("en", "language to translate from; one of the two is en")
    target: str = option("de", "language to translate to; one of the two is en")
    path: str | None = option(None, "folder with train.tsv, validation.tsv and test.tsv; null: fetched from the hub")
    repository: str = option("sentence-transformers/parallel-sentences-tatoeba", "repository on the hub")
    validation_fraction: float = option(
        0.01, "fraction of train to carve if the validation split is missing", ge=0, lt=0.5
    )
    test_fraction: float = option(0.01, "fraction of train to carve if the test split is missing", ge=0, lt=0.5)
    split_seed: int = option(0, "seed of the carved splits", ge=0)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from PairDataset.check(self)
        if not self.path and "en" not in (self.source, self.target):
            yield "target", f"found {self.target} with dataset.source={self.source}, expected en to be one of them"

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        yield from parallel_text.with_splits(
            self._pairs(cache), self.validation_fraction, self.test_fraction, self.split_seed
        )

    def _pairs(self, cache: Path) -> Iterator[Example | Problem]:
        if self.path:
            yield from pairs.read(Path(self.path), self.source, self.target, only=self.split)
            return
        column = {"en": "english"}
        columns = [column.get(language, "non_english") for language in (self.source, self.target)]
        other = self.target if self.source == "en" else self.source
        yield from rows(self, f"en-{other}", "train", cache, columns)


@spec
class Uncleaned(_Official):
    """Fields of the corpora that were published with bad pairs."""

    on_bad: Literal["refuse", "drop"] = option(
        "drop", "what to do about bad examples: refuse the data and list all problems, or drop and count them"
    )
    path: str | None = option(None, "folder with the splits as text files; null: fetched from the hub")
    test: str | None = option(None, "name of the test files in the folder, if there are several")


@spec
class IWSLT(Uncleaned):
    """Transcripts of talks, with the official splits."""

    source: str = option("de", "language to translate from: de, en, fr, it, nl, ro, ar, ja, ko, zh")
    target: str = option("en", "language to translate to")
    repository: str = option("IWSLT/iwslt2017", "repository on the hub")
    revision: str | None = option(hub.EXPORT, "branch, tag or commit of the repository; not used with a path")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        yield from all_splits(self, f"iwslt2017-{self.source}-{self.target}", cache, None)

    def shards(self, split: str, cache: Path) -> Shards:
        name = f"iwslt2017-{self.source}-{self.target}"
        return hub.shards(self.repository, name, split, self.revision, cache, ("translation",), None)


@spec
class WMT14(Uncleaned):
    """News and parliament, millions of sentences, with the official splits."""

    source: str = option("en", "language to translate from; one of the two is en")
    target: str = option("de", "language to translate to; the other is cs, de, fr, hi or ru")
    repository: str = option("wmt/wmt14", "repository on the hub")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        yield from all_splits(self, self._name, cache, None)

    def shards(self, split: str, cache: Path) -> Shards:
        return hub.shards(self.repository, self._name, split, self.revision, cache, ("translation",), None)

    @property
    def _name(self) -> str:
        return f"{self.target if self.source == 'en' else self.source}-en"


def all_splits(
    dataset: Any, name: str | None, cache: Path, columns: Sequence[str] | None
) -> Iterator[Example | Problem]:
    """Yield the pairs of a corpus with official splits, from the files at its ``path``, else from the hub."""
    if dataset.path:
        yield from pairs.read(Path(dataset.path), dataset.source, dataset.target, dataset.test, dataset.split)
        return
    for split in dataset.kept:
        yield from rows(dataset, name, split, cache, columns)


def rows(
    dataset: Any, name: str | None, split: str, cache: Path, columns: Sequence[str] | None
) -> Iterator[Example | Problem]:
    """Yield the pairs of one split on the hub.

    Args:
        dataset: the spec, which has the repository, its revision and the languages.
        name: configuration of the repository.
        split: name of the split, the same on the hub.
        cache: folder for downloads.
        columns: of source and target; None: both are in ``translation``, by language.

    Raises:
        DataError: it cannot be fetched, or columns are missing.
    """
    languages = dataset.source, dataset.target
    data, where = hub.load(dataset.repository, name, split, dataset.revision, cache, columns or ["translation"])
    pairs_of = _columns(columns) if columns else _by_language(languages)
    for start in range(0, len(data), BLOCK):
        for i, (source, target) in enumerate(pairs_of(data[start : start + BLOCK]), start):
            origin = f"{where}, row {i}"
            if isinstance(source, str) and isinstance(target, str):
                yield pair(f"{split}.{i}", split, source, target, origin, languages)
            else:
                message = f"found {source!r} and {target!r}, expected a text in {' and '.join(languages)}"
                yield Problem("wrong type", origin, message)


def _columns(columns: Sequence[str]) -> Callable[[Any], Any]:
    return lambda block: zip(*(block[column] for column in columns), strict=True)


def _by_language(languages: tuple[str, str]) -> Callable[[Any], Any]:
    return lambda block: ([(row or {}).get(language) for language in languages] for row in block["translation"])
