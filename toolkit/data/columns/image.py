"""Images: decoded once to uint8 pixels of one size and memory-mapped."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data import cache as array_cache
from toolkit.data.batch import Batch, Fields
from toolkit.data.columns.column import Column, Decoded, Flaw, Question, flaws, selected
from toolkit.data.description import Description, Sample
from toolkit.data.example import File
from toolkit.data.files import files
from toolkit.data.media.excerpt import thumbnail
from toolkit.data.problems import Problem
from toolkit.errors import reading

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

FIELDS: Fields = {"images": (("batch", "height", "width", "channels"), np.uint8)}
AUGMENTATION: Fields = {
    "boxes": (("batch", 4), np.int32),  # the crop: (top, left, height, width), may extend beyond the image
    "flips": (("batch",), np.bool_),  # left to right
    "erased": (("batch", 4), np.int32),  # in the augmented image: (top, left, height, width); height 0 = nothing
    "partners": (("batch",), np.int32),  # mixup: row of the image that is mixed in
    "shares": (("batch",), np.float32),  # mixup: weight of the image itself, 1 = nothing is mixed in
}
FILE = "images.json"  # height, width and channels of the training images
Shape = tuple[int, int, int]  # height, width, channels


@spec
class ImageFields:
    """Fields of a dataset that has images."""

    size: int | None = option(
        None,
        "height and width in pixels: the central square of every image is cropped and resized; null: unchanged, "
        "which must be one size",
        ge=1,
        le=4096,
    )
    channels: Literal[1, 3] | None = option(
        None, "1: grey, 3: colour; other images are converted; null: unchanged, which must be one kind"
    )
    max_pixels: int = option(
        50_000_000, "height x width above which an image is refused undecoded", ge=1, le=89_000_000
    )


class ImageFeatures(Protocol):
    """The contract of image features: crops, flips, normalisation."""

    def shape(self, height: int, width: int, channels: int) -> Shape: ...

    def learn(self, images: Iterable[np.ndarray], folder: Path) -> None: ...

    def load(self, folder: Path) -> dict[str, np.ndarray]: ...

    def draw_batch(
        self, height: int, width: int, seed: int, epoch: int, examples: np.ndarray
    ) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class ImageValues:
    """Images of a split.

    Args:
        digests: SHA-256 of the undecoded files.
        path: the memory-mapped file that holds the pixels, or the pixels themselves.
        rows: ``(images,)`` int64, their rows in it.
        shape: height, width, channels.
        partial: rows in it of the images that have several frames, of which they are the first.
    """

    digests: list[str]
    path: Path | tuple[np.ndarray, ...]
    rows: np.ndarray
    shape: Shape
    partial: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def header(self) -> str:
        return f"{self.shape}\n"

    @property
    def records(self) -> Sequence[str]:
        return self.digests

    def describe(self) -> str:
        return " x ".join(map(str, self.shape))

    def pixels(self, places: np.ndarray) -> np.ndarray:
        """Return a ``(places, height, width, channels)`` uint8 copy."""
        return array_cache.stacked(self.path, self.rows[places]).reshape(-1, *self.shape)

    def select(self, kept: Sequence[int]) -> ImageValues:
        return selected(self, kept)


@dataclass(frozen=True)
class ImageState:
    """The state learned from the training images: their shape, and the state of the features."""

    shape: Shape
    state: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ImageBatcher:
    """Pixels of a batch, and the augmentation drawn for it.

    Args:
        values: of the split.
        features: draw the augmentation.
        seed: of the draws; None in evaluation.
    """

    values: ImageValues
    features: ImageFeatures
    seed: int | None

    @property
    def fields(self) -> Fields:
        return FIELDS if self.seed is None else FIELDS | AUGMENTATION

    def lengths(self, places: np.ndarray) -> Batch:
        return {}

    def collate(self, places: np.ndarray, whole: Batch | None) -> Batch:
        return {"images": self.values.pixels(places)}

    def augment(self, batch: Batch, positions: np.ndarray, epoch: int) -> Batch:
        if self.seed is None:
            return {}
        height, width, _ = self.values.shape
        return self.features.draw_batch(height, width, self.seed, epoch, positions)


class Image(Column[ImageValues]):
    """Images of one shape, as a model sees them through the run's features."""

    kind: ClassVar[str] = "image"
    noun: ClassVar[str] = "image"
    shown: ClassVar[int] = 12
    group: ClassVar[Literal["features", "tokenizer"] | None] = "features"
    decodes: ClassVar[bool] = True

    dataset: Any  # has ImageFields
    component: Any  # ImageFeatures

    def decode(
        self, values: Sequence[File], wheres: Sequence[str], cache: Path | None, progress: Bars
    ) -> Decoded[ImageValues]:
        from toolkit.data.media.image import VERSION, decode

        dataset = self.dataset
        settings = {"size": dataset.size, "channels": dataset.channels, "max_pixels": dataset.max_pixels}
        key = f"image {VERSION} {settings}"
        decoder = array_cache.Decoder(functools.partial(decode, **settings), np.uint8, key, "decoding images")
        store = array_cache.store(values, decoder, cache and cache / "images", progress)
        all_flaws = [*flaws(store.problems), *_one_shape(store, wheres)]
        height, width, channels = store.shapes[0] if store.shapes else (0, 0, 0)
        rows = np.arange(len(store.positions))
        partial = frozenset(np.flatnonzero(np.isin(store.positions, store.partial)).tolist())
        decoded = ImageValues(list(store.digests), store.path, rows, (height, width, channels), partial)
        return Decoded(decoded, store.positions, all_flaws)

    def learn(self, values: Sequence[ImageValues], folder: Path) -> None:
        blocks = ((part, np.arange(i, min(i + 512, len(part)))) for part in values for i in range(0, len(part), 512))
        self.component.learn((image for part, block in blocks for image in part.pixels(block)), folder)
        (folder / FILE).write_text(json.dumps({"shape": values[0].shape}) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> ImageState:
        path = folder / FILE
        with reading(path, "shape of images"):
            height, width, channels = (int(n) for n in json.loads(path.read_text(encoding="utf-8"))["shape"])
        return ImageState((height, width, channels), self.component.load(folder))

    def size(self, learned: ImageState) -> Shape:
        height, width, channels = self.component.shape(*learned.shape)
        return height, width, channels

    def state(self, learned: ImageState) -> Mapping[str, np.ndarray]:
        return learned.state

    def unfit(self, values: ImageValues, learned: ImageState) -> Iterator[Flaw]:
        if not len(values):
            return
        (height, width, channels), expected = learned.shape, self.size(learned)
        advice = []
        if tuple(self.component.shape(*values.shape[:2], channels)) != expected:
            advice.append(f"set dataset.size={height}" if height == width else f"resize them to {height} x {width}")
        if values.shape[2] != channels:
            advice.append(f"set dataset.channels={channels}")
        if advice:
            message = f"found {values.shape} (height, width, channels), expected {learned.shape} as in training"
            yield Flaw(0, "another shape", f"{message}; {' and '.join(advice)}", fatal=True)

    def notes(self, values: ImageValues, learned: ImageState) -> Iterator[str]:
        if count := len(values.partial.intersection(values.rows.tolist())):
            subject = "1 image has" if count == 1 else f"{count:,} images have"
            yield f"{subject} several frames (an animation, or pages): only the first is used"

    def describe(self, values: ImageValues, learned: ImageState) -> Description:
        """Describe the size of all images and of the part of them that the model gets."""
        shapes = (("size", values.shape), ("model input", self.size(learned)))
        return Description(tuple((label, f"{_size(shape)}, {_colour(shape)}") for label, shape in shapes))

    def sample(self, values: ImageValues, i: int) -> Sample:
        """Return an image, made smaller if it is large."""
        return Sample(media=thumbnail(values.pixels(np.array([i]))[0]), mime="image/png")

    def fields(self) -> Fields:
        return FIELDS

    def augmentation(self) -> Fields:
        return AUGMENTATION

    def batcher(self, values: ImageValues, learned: ImageState, seed: int | None) -> ImageBatcher:
        # a loader's worker process needs no digests; an empty split has no shape
        bare = replace(values, digests=[], shape=values.shape if len(values) else learned.shape)
        return ImageBatcher(bare, self.component, seed)

    def questions(self, inputs: Iterable[str]) -> Iterator[Question | Problem]:
        """Yield each input as a file, or the files of a folder."""
        from toolkit.data.media.image import FORMATS

        return files(inputs, self.noun, FORMATS)


def _one_shape(store: array_cache.Store, wheres: Sequence[str]) -> Iterator[Flaw]:
    """Yield a fatal flaw for images of two sizes, and for grey beside colour."""
    kinds = (
        ("several sizes", _size, "dataset.size=N crops and resizes all"),
        ("grey and colour", _colour, "dataset.channels=3 or 1 converts all"),
    )
    for kind, describe, advice in kinds:
        other = next((i for i, shape in enumerate(store.shapes) if describe(shape) != describe(store.shapes[0])), None)
        if other is not None:
            first, second = (describe(store.shapes[i]) for i in (0, other))
            message = f"has {first}, but {wheres[store.positions[other]]} has {second}"
            yield Flaw(store.positions[0], kind, f"{message}, expected one kind; {advice}", fatal=True)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} pixels"


def _colour(shape: tuple[int, ...]) -> str:
    return "grey" if shape[2] == 1 else "colour"
