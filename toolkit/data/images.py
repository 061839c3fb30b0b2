"""Picture corpora for classification: pictures of a dataset, checked, decoded once and memory-mapped.

``prepare`` takes what a dataset names (``toolkit/datasets``), decodes it (``media/image.py``) into one Arrow file
in the cache and returns the splits. ``usable`` is the second stage, which needs the classes that were learned. Both
list every problem at once and, by the dataset's ``on_bad``, refuse the data or leave the bad pictures out with a count.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import threading
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.batch import Batch
from toolkit.data.corpus import (
    SPLITS,
    Corpus,
    Data,
    Given,
    Learned,
    Problem,
    Report,
    Source,
    batched,
    cache_folder,
    empty_splits,
    first_report,
    judge,
    misplaced,
    nearest,
    parted,
    passing_folder,
    progress,
    selected,
)
from toolkit.errors import DataError, reading

SHAPE = "pictures.json"  # in a run's features/: height, width and channels of the pictures that it learned from
ANSWER = "{id}\t{hypothesis}"  # a line of what toolkit.cli.predict prints


@dataclass(frozen=True, slots=True)
class Picture:
    """What a dataset says about one picture, before anything is decoded.

    Args:
        id: unique in the corpus.
        split: "train", "validation" or "test".
        text: name of its class.
        image: a file, its bytes, pixels as ``(height, width[, channels])`` uint8, or a function that returns bytes or
            pixels (then ``stamp`` is needed).
        origin: where the user finds it: "train/cat/17.jpg".
        name: file name of a picture that is no path, for messages.
        stamp: changes whenever ``image`` changes; empty: derived from the file's size and times.
    """

    id: str
    split: str
    text: str
    image: Path | bytes | np.ndarray | Callable[[], bytes | np.ndarray]
    origin: str
    name: str = ""
    stamp: str = ""


@dataclass(frozen=True)
class Split:
    """One split. The pixels stay in the memory-mapped file ``path``, or those of a stream in a tuple; ``rows`` are
    their places in it."""

    name: str
    ids: list[str]
    texts: list[str]  # names of the classes
    origins: list[str]
    digests: list[str]  # SHA-256 of the undecoded pictures
    path: Path | tuple[np.ndarray, ...]
    rows: np.ndarray  # (pictures,) int64
    shape: tuple[int, int, int]  # height, width, channels

    def __len__(self) -> int:
        return len(self.ids)

    def describe(self) -> str:
        return f"{len(self)} examples ({' x '.join(map(str, self.shape))}, {len(set(self.texts))} classes)"

    def pictures(self, positions: np.ndarray) -> np.ndarray:
        """``(positions, height, width, channels)`` uint8 copy."""
        from toolkit.data import cache as array_cache

        return array_cache.stacked(self.path, self.rows[positions]).reshape(-1, *self.shape)

    def select(self, kept: Sequence[int]) -> Split:
        """The split with only the pictures at these positions."""
        return selected(self, kept)


@spec
class Images(Source):
    """Fields that every picture dataset has."""

    domains: ClassVar[tuple[str, ...]] = ("images",)

    size: int | None = option(
        None,
        "height and width in pixels: the middle square of every picture is cut out and resized; null: as they are, "
        "which must be one size",
        ge=1,
        le=4096,
    )
    channels: Literal[1, 3] | None = option(
        None, "1: grey, 3: colour; what is otherwise is converted; null: as they are, which must be one kind"
    )
    max_pixels: int = option(
        50_000_000, "height x width above which a picture is refused undecoded", ge=1, le=89_000_000
    )
    validation_fraction: float = option(
        0.1,
        "part of the training pictures of each class that is set apart if there is no validation split, by a hash of "
        "split_seed and each picture's name",
        ge=0,
        lt=1,
    )
    split_seed: int = option(0, "another seed sets other pictures apart", ge=0)
    repeats: Literal["bad", "keep"] = option(
        "bad", "the same file in two splits or in two classes: bad, or kept and counted in the log"
    )


class Later:
    """Pixels of many pictures in one file, which is read when the first of them is needed.

    Args:
        read: returns ``(pictures, height, width[, channels])`` uint8.
    """

    def __init__(self, read: Callable[[], np.ndarray]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._pixels: np.ndarray | None = None

    def __call__(self, i: int) -> np.ndarray:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._read()
        return self._pixels[i]


def labelled(
    split: str, first: int, labels: Sequence[int], names: Sequence[str], pixels: Callable[[int], np.ndarray], file: Path
) -> Iterator[Picture | Problem]:
    """The pictures of a file of raw pixels, called by their place in the split.

    Args:
        split: of all of them.
        first: place of the file's first picture.
        labels: the class of each.
        names: of the classes.
        pixels: place in the file -> pixels.
        file: holds the pixels.
    """
    from toolkit.data import cache as array_cache

    stamp = array_cache.file_identity(file)
    for i, label in enumerate(labels):
        where = f"{file.name}, row {i}"
        if 0 <= label < len(names):
            image = functools.partial(pixels, i)
            yield Picture(f"{split}/{first + i:05}", split, names[label], image, where, stamp=f"{stamp} {i}")
        else:
            yield Problem("bad label", where, f"found class {label}, expected 0 to {len(names) - 1}")


class Dataset(Protocol):
    """What ``prepare`` needs of a dataset spec, besides the fields of :class:`Images`."""

    def pictures(self, cache: Path, progress: Any) -> Iterator[Picture | Problem]:
        """Yield what there is, in a stable order, and what is wrong with it.

        Args:
            cache: folder for downloads.
            progress: a running ``rich.progress.Progress``.
        """
        ...


def prepare(dataset: Any, cache: Path | None = None) -> Corpus:
    """Fetch, check, decode and memory-map a dataset.

    Where it names no picture for validation, some are set apart; likewise for the test, where the dataset has a field
    ``test_fraction``.

    Args:
        dataset: a spec with the fields of :class:`Images` and the method of :class:`Dataset`.
        cache: instead of ``corpus.cache_folder()``.

    Raises:
        DataError: every problem that was found, unless ``dataset.on_bad`` is "drop" and all can be left out.
        RunError: the cache cannot be written.
    """
    cache = cache or cache_folder()
    with progress() as bars:
        found, problems = parted(dataset.pictures(cache, bars))
        pictures, more = _sound(found)
        parts = {"test": getattr(dataset, "test_fraction", 0.0), "validation": dataset.validation_fraction}
        pictures = cut(pictures, parts, dataset.split_seed)
        splits, unfit, notes = _decoded(dataset, pictures, cache, bars)
    report = first_report(dataset, splits, problems + more + unfit, "picture")
    return Corpus(splits, _fingerprint(splits), report + Report({}, [], notes))


def gather(dataset: Any, found: Sequence[Picture | Problem]) -> tuple[Split, list[Problem]]:
    """The first stage for some pictures of the training split, which are decoded into memory."""
    pictures, problems = parted(found)
    pictures, more = _sound(pictures)
    splits, unfit, _ = _decoded(dataset, pictures, None, progress())
    return splits["train"], problems + more + unfit


def cut(pictures: Sequence[Picture], parts: Mapping[str, float], seed: int) -> list[Picture]:
    """Move parts of the training pictures to the splits that have none.

    Each class gives the same part, rounded, but at least one picture and never its last. Which ones depends on a hash
    of seed and id, so neither on the order of the pictures nor on the other ones' names.

    Args:
        pictures: of all splits.
        parts: split -> fraction of the training pictures.
        seed: another one moves other pictures.
    """
    there = {picture.split for picture in pictures}
    wanted = {split: part for split, part in parts.items() if part and split not in there}
    of_class: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        if wanted and picture.split == "train":
            of_class[picture.text].append(picture.id)
    moved: dict[str, str] = {}
    for ids in of_class.values():
        order = sorted(ids, key=lambda id: hashlib.sha256(f"{seed}\0{id}".encode("utf-8", "replace")).digest())
        for split, part in wanted.items():
            count = min(max(1, round(part * len(ids))), len(order) - 1)
            moved |= dict.fromkeys(order[:count], split)
            order = order[count:]
    return [dataclasses.replace(p, split=moved[p.id]) if p.id in moved else p for p in pictures]


def _where(picture: Picture) -> str:
    return picture.origin if not picture.name else f"{picture.origin} ({picture.name})"


def _sound(pictures: list[Picture]) -> tuple[list[Picture], list[Problem]]:
    """The pictures with a usable class, split name and id, and the problems of the others."""
    kept: list[Picture] = []
    problems: list[Problem] = []
    first: dict[str, Picture] = {}
    for picture in pictures:
        text = unicodedata.normalize("NFC", picture.text)
        kind, message = misplaced(picture, first)
        if not kind and not text.strip():
            kind, message = "no class", "found no name of a class"
        if kind:
            problems.append(Problem(kind, _where(picture), message))
        else:
            kept.append(picture if text == picture.text else dataclasses.replace(picture, text=text))
    return kept, problems


def _decoded(
    dataset: Any, pictures: list[Picture], cache: Path | None, bars: Any
) -> tuple[dict[str, Split], list[Problem], tuple[str, ...]]:
    """Decode the pictures: splits, problems with those that cannot be used, notes on repeated ones that are kept.

    Without a cache they are held in memory.
    """
    from toolkit.data import cache as array_cache
    from toolkit.data.media.image import VERSION, decode

    settings = {"size": dataset.size, "channels": dataset.channels, "max_pixels": dataset.max_pixels}
    decoder = array_cache.Decoder(
        functools.partial(decode, **settings), np.uint8, f"picture {VERSION} {settings}", "decoding pictures"
    )
    items = [
        array_cache.Item(p.image.name if isinstance(p.image, Path) else p.name, p.image, p.stamp) for p in pictures
    ]
    if cache:
        store = array_cache.store(items, decoder, cache / "images", bars)
    else:
        store = array_cache.hold(items, decoder, bars)
    problems = [Problem(kind, _where(pictures[i]), message) for i, kind, message in store.problems]
    shown = {row: pictures[position] for row, position in enumerate(store.positions)}
    problems += _one_shape(shown, store.shapes)
    repeated = dict(_repeated(shown, store.digests))
    notes: list[str] = []
    if dataset.repeats == "bad":
        problems += repeated.values()
    else:
        counts = Counter(problem.kind for problem in repeated.values())
        notes = [f"pictures {kind}: {count} (kept: dataset.repeats=keep)" for kind, count in counts.items()]
        repeated = {}
    shape = store.shapes[0] if store.shapes else (0, 0, 0)
    splits = {}
    for name in SPLITS:
        rows = [row for row, picture in shown.items() if picture.split == name and row not in repeated]
        splits[name] = Split(
            name,
            [shown[row].id for row in rows],
            [shown[row].text for row in rows],
            [shown[row].origin for row in rows],
            [store.digests[row] for row in rows],
            store.path,
            np.array(rows, np.int64),
            (shape[0], shape[1], shape[2]),
        )
    return splits, problems, tuple(notes)


def _one_shape(shown: Mapping[int, Picture], shapes: Sequence[tuple[int, ...]]) -> Iterator[Problem]:
    """A fatal problem each for pictures of two sizes, and for grey beside coloured ones."""
    kinds: tuple[tuple[str, Callable[[tuple[int, ...]], str], str], ...] = (
        ("several sizes", lambda s: f"{s[0]} x {s[1]} pixels", "dataset.size=N crops and resizes all"),
        ("grey and colour", lambda s: "grey" if s[2] == 1 else "colour", "dataset.channels=3 or 1 converts all"),
    )
    for kind, said, advice in kinds:
        other = next((row for row in shown if said(shapes[row]) != said(shapes[0])), None)
        if other is not None:
            found = f"has {said(shapes[0])}, but {_where(shown[other])} has {said(shapes[other])}"
            yield Problem(kind, _where(shown[0]), f"{found}, expected one kind; {advice}", fatal=True)


def _repeated(shown: Mapping[int, Picture], digests: Sequence[str]) -> Iterator[tuple[int, Problem]]:
    """Files with the same bytes in two splits, or in two classes. The one for the test stays, the copy goes."""
    rank = {name: i for i, name in enumerate(reversed(SPLITS))}
    first: dict[str, Picture] = {}
    for row in sorted(shown, key=lambda row: rank[shown[row].split]):
        picture = shown[row]
        known = first.setdefault(digests[row], picture)
        same = f"the same file as {_where(known)}"
        if known.text != picture.text:
            message = f"{same}, which is of class {known.text!r}, while this is of class {picture.text!r}"
            yield row, Problem("in two classes", _where(picture), message)
        elif known.split != picture.split:
            message = f"{same}, so {known.split} would measure what {picture.split} holds; keep one of them"
            yield row, Problem("in two splits", _where(picture), message)


def _fingerprint(splits: Mapping[str, Split]) -> str:
    digest = hashlib.sha256(f"{splits['train'].shape}\n".encode())
    for name, split in splits.items():
        for record in zip(split.ids, split.texts, split.digests, strict=True):
            digest.update("\0".join((name, *record, "")).encode(errors="surrogateescape"))
    return digest.hexdigest()


def learn(run: Any, train: Split, folder: Path) -> None:
    """Learn the classes and the features from the training split, into ``folder``."""
    run.tokenizer.learn(train.texts, folder / "tokenizer")
    blocks = (np.arange(i, min(i + 512, len(train))) for i in range(0, len(train), 512))
    run.features.learn((picture for block in blocks for picture in train.pictures(block)), folder / "features")
    (folder / "features" / SHAPE).write_text(json.dumps({"shape": train.shape}) + "\n", encoding="utf-8")


def load(run: Any, folder: Path) -> Learned:
    """What :func:`learn` left.

    Raises:
        DataError: it is missing or damaged.
    """
    tokenizer = run.tokenizer.load(folder / "tokenizer")
    path = folder / "features" / SHAPE
    with reading(path, "shape of pictures"):
        height, width, channels = (int(n) for n in json.loads(path.read_text(encoding="utf-8"))["shape"])
    inputs = tuple(run.features.shape(height, width, channels))
    return Learned(tokenizer, run.features.load(folder / "features"), inputs, tokenizer.size)


def usable(run: Any, corpus: Corpus, learned: Learned) -> Corpus:
    """Second stage: hold the classes against those of the training split.

    Raises:
        DataError: classes that the training split lacks; fewer than two classes; a split that is left empty.
    """
    problems: list[Problem] = []
    splits = {}
    if learned.outputs < 2:
        found = f"found only {_first_classes(learned)}, expected at least two"
        message = f"{found}; is dataset.path the folder above the folders of classes?"
        problems.append(Problem("one class", "train", message, fatal=True))
    for name, split in corpus.splits.items():
        splits[name], bad = fitting(run, split, learned)
        problems += bad
    problems += empty_splits(splits, "picture", run.dataset)
    report = judge(problems, run.dataset.on_bad, "the classes that were learned")
    return Corpus(splits, _fingerprint(splits), corpus.report + report)


def fitting(run: Any, split: Split, learned: Learned) -> tuple[Split, list[Problem]]:
    """The pictures whose class is known, and the problems of the others."""
    new: dict[str, str] = {}  # to what is said of it, once a class: among many the nearest is far to seek
    for text in set(split.texts):
        if learned.tokenizer.unknown(text):
            hint = nearest(text, learned.tokenizer.classes)
            known = _first_classes(learned)
            new[text] = f"{text!r} has no usable picture in the training split, which knows {known}{hint}"
    both = zip(split.texts, split.origins, strict=True)
    problems = [Problem("unknown class", origin, new[text]) for text, origin in both if text in new]
    kept = [i for i, text in enumerate(split.texts) if text not in new]
    return split if len(kept) == len(split) else split.select(kept), problems


def _first_classes(learned: Learned) -> str:
    return ", ".join(repr(name) for name in learned.tokenizer.classes[:10]) + ", ..." * (learned.outputs > 10)


def data(run: Any, split: Split, learned: Learned, training: bool) -> Data:
    """Batches of a split under a budget of pictures; ``training`` draws the augmentation.

    Raises:
        DataError: the pictures have another shape than those that the run learned from.
    """
    inputs = tuple(run.features.shape(*split.shape)) if len(split) else learned.inputs
    if inputs != tuple(learned.inputs):
        raise DataError(
            f"{split.origins[0]}: the pictures give the model {inputs} (height, width, channels), expected "
            f"{tuple(learned.inputs)} as in the training; dataset.size=N and dataset.channels=1|3 convert them"
        )
    labels = np.array([next(iter(learned.tokenizer.encode(text)), 0) for text in split.texts], np.int32)
    bare = dataclasses.replace(split, ids=[], texts=[], origins=[], digests=[])  # a worker process needs no more
    collator = Collator(bare, labels, run.features, run.seed if training else None)
    return batched(run, split, collator, np.ones(len(split)))


def given(run: Any, inputs: Sequence[str], learned: Learned) -> Given:
    """Pictures to be classified, and what is wrong with some of them.

    They are decoded into a folder that goes when the process ends.
    """
    cache = passing_folder()
    pictures = [Picture(str(i), "test", "", Path(name), name) for i, name in enumerate(inputs)]
    with progress() as bars:
        splits, problems, _ = _decoded(run.dataset, pictures, cache, bars)
    return Given(dataclasses.replace(splits["test"], ids=list(splits["test"].origins)), problems)


@dataclass(frozen=True)
class Collator:
    """Gathers the pictures of a batch.

    Args:
        split: where they are; it needs no names.
        labels: ``(pictures,)`` int32, the class of every picture of the split.
        features: the feature spec, which draws the augmentation.
        seed: seed of the augmentation; None for an evaluation, which draws nothing.
        first: the position that the split's first picture is called by.
    """

    split: Split
    labels: np.ndarray
    features: Any
    seed: int | None
    first: int = 0

    def known(self, positions: np.ndarray) -> Batch:
        return {"example": np.asarray(positions, np.int64)}

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        height, width, _ = self.split.shape
        return {
            "example": np.asarray(positions, np.int64),
            "images": self.split.pictures(positions - self.first),
            "labels": self.labels[positions - self.first],
            **self.features.draw_batch(height, width, self.seed, epoch, positions),
        }
