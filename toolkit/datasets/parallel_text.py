"""``dataset=parallel_text``: your own sentences and their translations.

``dataset.path`` is one of these, gzipped (``.gz``) or not:

- a folder with ``train.tsv``, ``validation.tsv`` (or ``dev``, ``val``, ``valid``) and ``test.tsv``: a header line with
  the names of the languages, ``en<TAB>de``; one pair per line, no quoting. A third column may be ``id``, a name for
  each pair;
- such files of JSON lines, ``train.jsonl``: ``{"translation": {"en": ..., "de": ...}}`` or ``{"en": ..., "de": ...}``,
  optionally with ``id``;
- such files of translation memories, ``train.tmx``, without the placeholders in their segments; or WMT's test sets in
  XML, with ``<src lang>`` and ``<ref lang>``;
- one of these files without splits, or a folder with only that file;
- a folder with line-aligned files, one for each split and language: ``train.en``, ``train.de``, ``val.en``, ...,
  ``test.de`` or ``test_2016.de``. Line n of one is the translation of line n of the other. Names of Moses and OPUS
  (``train.de-en.de``) and of OpenNMT (``src-train.txt``, ``tgt-train.txt``) are known too, and one corpus without
  splits (``Tatoeba.de-en.de``). Beside them, WMT's test sets in SGML, ``newstest2014-deen-src.de.sgm`` and
  ``newstest2014-deen-ref.en.sgm``, whose segments are matched by document and number.

With two languages, the first one of a file is translated to the second, or the first in alphabetical order to the
other; ``dataset.source`` and ``dataset.target`` reverse the direction, or select two of more languages; ``en`` selects
``en-US`` if that is the only one. Missing validation and test splits are carved from the training split, so that no
sentence of either language is in two splits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config.spec import option, spec
from toolkit.data.columns.text import clean
from toolkit.data.example import SPLITS, Example, Sentence
from toolkit.data.problems import Problem, parted
from toolkit.data.sources import folder
from toolkit.datasets.base import PairDataset, check_fractions
from toolkit.datasets.layouts.pairs import read

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


@spec
class ParallelText(PairDataset):
    """Your own parallel corpus."""

    path: str | None = option(None, "the folder with the splits, or one file")
    test: str | None = option(None, "name of the test files, if there are several: test_2016_flickr")
    validation_fraction: float = option(
        0.05, "fraction of train to carve if the validation split is missing", ge=0, lt=1
    )
    test_fraction: float = option(0.05, "fraction of train to carve if the test split is missing", ge=0, lt=1)
    split_seed: int = option(0, "seed of the carved splits", ge=0)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from PairDataset.check(self)
        if not self.path:
            yield "path", "not set; set dataset.path=FOLDER, the folder of your texts"
        yield from check_fractions(self.validation_fraction, self.test_fraction)

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        items = read(Path(self.path or ""), self.source, self.target, self.test, self.split)
        yield from with_splits(items, self.validation_fraction, self.test_fraction, self.split_seed)


# --- splits ----------------------------------------------------------------------------------------------------------


def with_splits(
    items: Iterable[Example | Problem], validation: float, test: float, seed: int
) -> Iterator[Example | Problem]:
    """Yield examples and problems, with missing splits carved from train; see :func:`cut`.

    Nothing is carved if a problem is fatal: the files that are left may be too few for that.
    """
    pairs, problems = parted(items)
    yield from problems
    present = set(SPLITS) if any(problem.fatal for problem in problems) else {example.split for example in pairs}
    yield from cut(pairs, 0 if "validation" in present else validation, 0 if "test" in present else test, seed)


def cut(pairs: Sequence[Example], validation: float, test: float, seed: int) -> Iterator[Example | Problem]:
    """Move fractions of the training split to validation and test.

    Pairs that share a sentence of either language, directly or through other pairs, stay together. They are taken in
    the order of a hash of seed and texts, which depends neither on the order of the lines nor on the direction.

    Args:
        pairs: of all splits.
        validation, test: fractions of the training split.
        seed: selects the pairs.
    """
    if not validation and not test:
        yield from pairs
        return
    train = [example for example in pairs if example.split == "train"]
    groups = _groups(train)
    message = f"none of the {len(groups)} groups of pairs that share a sentence ({len(train)} pairs in all) is small "
    message += "enough for a split; provide the splits"
    yield from folder.cut(pairs, groups, validation, test, seed, message)


def _groups(pairs: Sequence[Example]) -> dict[str, list[Example]]:
    """Group pairs that share sentences, ignoring case and white space; the key is the alphabetically first sentence."""
    parent: dict[str, str] = {}  # sentence -> a smaller sentence of its group, or itself

    def find(sentence: str) -> str:
        while (ancestor := parent.setdefault(sentence, sentence)) != sentence:
            parent[sentence] = parent[ancestor]
            sentence = ancestor
        return sentence

    keys = []
    for example in pairs:
        sides = [value for value in example.values.values() if isinstance(value, Sentence)]
        # an empty sentence is shared by no other pair
        keyed = ((side.language, clean(side.text).casefold() or f"\0{example.id}") for side in sides)
        roots = sorted(find("\0".join(name)) for name in keyed)
        parent[roots[1]] = roots[0]
        keys.append(roots[0])
    groups: dict[str, list[Example]] = defaultdict(list)
    for key, example in zip(keys, pairs, strict=True):
        groups[find(key)].append(example)
    return groups
