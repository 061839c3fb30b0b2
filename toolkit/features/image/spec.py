"""Pictures as a model sees them: cut, resized, flipped, normalised, erased in part and mixed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.random import symmetric_beta, uniform
from toolkit.errors import ConfigError
from toolkit.features import statistics

if TYPE_CHECKING:
    from toolkit.config.schema import Run

STATISTICS = "image.json"  # what `learn` leaves in the run folder
ATTEMPTS = 10  # at a box that fits into the picture, as in torchvision

# Where each random number of an example stands in its stream, so that one option does not change what another draws.
PLACE, FLIP, ERASES, SHARE, ERASED_PLACE, SIZES, ERASED_SIZES = 0, 2, 3, 4, 6, 8, 8 + 2 * ATTEMPTS
WORDS = ERASED_SIZES + 2 * ATTEMPTS


@spec
class Erase:
    """A box of a training picture is emptied (Zhong et al. 2017, "Random Erasing Data Augmentation", algorithm 1).

    The emptied pixels are zero after normalisation, the mean of their channel: the paper's variant "RE-M". The defaults
    are those of its experiments. Upright boxes are as likely as lying ones.
    """

    probability: float = option(default=0.0, doc="of a picture being erased in part; the paper has 0.5", ge=0, le=1)
    area: tuple[float, float] = option(
        default=(0.02, 0.4), doc="smallest and largest box, as fractions of the picture", gt=0, le=1
    )
    ratio: tuple[float, float] = option(
        default=(0.3, 1 / 0.3), doc="smallest and largest width over height of the box", gt=0
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from _ordered("area", self.area)
        yield from _ordered("ratio", self.ratio)


@spec
class Image:
    """Bytes to normalised pixels, with the augmentation of training pictures.

    Cutting a box out, bringing it to the model's size and flipping it are one linear map, separable into rows and
    columns: bilinear interpolation between pixel centres, with the triangle widened by the scale where a picture
    shrinks (antialiasing), black beyond the edges. Where nothing is resized, pixels are copied.
    """

    domains: ClassVar[tuple[str, ...]] = ("images",)

    size: int | None = option(None, "height and width of what the model sees; null = as the pictures are", ge=1)
    crop: Literal["none", "pad", "random_resized"] = option(
        "none",
        "what is cut out of training pictures; none: all of them; pad: a box of a picture's own size out of it with "
        "black around (He et al. 2015, section 4.2); random_resized: a box of random area and ratio, brought to the "
        "model's size (Szegedy et al. 2015, section 6)",
    )
    padding: int = option(4, "pad: black pixels on each side", ge=0)
    area: tuple[float, float] = option(
        (0.08, 1.0), "random_resized: smallest and largest box, as fractions of the picture", gt=0, le=1
    )
    ratio: tuple[float, float] = option(
        (3 / 4, 4 / 3), "random_resized: smallest and largest width over height of the box", gt=0
    )
    flip: float = option(0.0, "probability that left and right of a training picture are exchanged", ge=0, le=1)
    erase: Erase = option(Erase(), "a box of a training picture is emptied")
    mixup: float = option(
        0.0,
        "alpha: a training picture's share in its mixture with another is drawn from Beta(alpha, alpha) (Zhang et al. "
        "2018); 0 = no mixing",
        ge=0,
    )
    normalize: Literal["training_set", "given", "none"] = option(
        "training_set",
        "to mean 0 and variance 1 in each channel: by the training split, by `mean` and `std`, or not (pixels 0 to 1)",
    )
    mean: tuple[float, ...] = option((), "given: mean of each channel, where white is 1")
    std: tuple[float, ...] = option((), "given: standard deviation of each channel, where white is 1", gt=0)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from _ordered("area", self.area)
        yield from _ordered("ratio", self.ratio)
        if self.normalize == "given" and not self.mean:
            yield "mean", "found none, expected a value for each channel with normalize=given"
        if self.normalize != "given" and (self.mean or self.std):
            yield "normalize", f"found {self.normalize} beside a mean or std, expected given"
        elif len(self.mean) != len(self.std):
            yield "std", f"found {len(self.std)} values, expected {len(self.mean)}, one for each of mean"

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Mixup mixes images of one device."""
        if self.mixup and run.trainer.shares > 1:
            yield "mixup", f"{self.mixup} is not supported with {run.trainer.shares} devices; set features.mixup=0"

    @property
    def moves(self) -> bool:
        """Whether any picture is cut, resized or flipped; else boxes and flips are not looked at."""
        return self.size is not None or self.crop != "none" or self.flip > 0

    @property
    def resizes(self) -> bool:
        """Whether pixels are interpolated; else they are copied."""
        return self.size is not None or self.crop == "random_resized"

    def shape(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """Height, width and channels of what the model sees of such pictures.

        Raises:
            ConfigError: ``mean`` and ``std`` are of another number of channels.
        """
        if self.normalize == "given" and len(self.mean) != channels:
            raise ConfigError(
                f"features.mean: found {len(self.mean)} values, expected {channels}, one for each channel"
            )
        return (self.size or height, self.size or width, channels)

    def whole(self, height: int, width: int) -> np.ndarray:
        """The box of a picture as it is: ``(4,)`` int32, top, left, height and width in pixels."""
        return np.array([0, 0, height, width], np.int32)

    def draw(self, height: int, width: int, seed: int, epoch: int, example: int) -> dict[str, Any]:
        """:meth:`draw_batch` for one picture.

        Returns:
            ``box`` and ``erased`` ``(4,)`` int32, ``flip``, ``share``.
        """
        drawn = self.draw_batch(height, width, seed, epoch, np.array([example]))
        names = {"box": "boxes", "flip": "flips", "erased": "erased", "share": "shares"}
        return {one: drawn[many][0] for one, many in names.items()}

    def draw_batch(
        self, height: int, width: int, seed: int | None, epoch: int, examples: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Draw the augmentation of a batch of training pictures.

        What is drawn for an example depends on (seed, epoch, example) alone, whatever the backend, the batch and the
        worker; only ``partners`` are places in the batch.

        Args:
            height, width: of the pictures, in pixels.
            seed: None draws nothing: whole pictures, for evaluation.
            examples: ``(batch,)`` positions in the split.

        Returns:
            the fields ``boxes``, ``flips``, ``erased``, ``partners`` and ``shares`` of ``toolkit.data.batch.IMAGES``.
        """
        count = len(examples)
        drawn = {
            "boxes": np.tile(self.whole(height, width), (count, 1)),
            "flips": np.zeros(count, np.bool_),
            "erased": np.zeros((count, 4), np.int32),
            "partners": np.roll(np.arange(count, dtype=np.int32), -1),  # the plan has shuffled
            "shares": np.ones(count, np.float32),
        }
        if seed is None:
            return drawn
        long = self.crop == "random_resized" or self.erase.probability > 0
        chance = uniform(seed, "image", epoch, examples, WORDS if long else SIZES)
        if self.crop == "pad":
            drawn["boxes"][:, :2] = chance[:, PLACE : PLACE + 2] * (2 * self.padding + 1) // 1 - self.padding
        elif self.crop == "random_resized":
            drawn["boxes"] = self._random_boxes(chance, height, width)
        drawn["flips"] = chance[:, FLIP] < self.flip
        if self.erase.probability:
            drawn["erased"] = self._random_erased(chance, self.size or height, self.size or width)
        if self.mixup:
            drawn["shares"] = symmetric_beta(chance[:, SHARE], chance[:, SHARE + 1], self.mixup).astype(np.float32)
        return drawn

    def _random_boxes(self, chance: np.ndarray, height: int, width: int) -> np.ndarray:
        """As torchvision draws them: where no attempt fits, the largest box of an allowed ratio; then the place."""
        rows, columns, found = _sizes(chance[:, SIZES:ERASED_SIZES], self.area, self.ratio, height, width)
        rows = np.where(found, rows, min(height, max(1, round(width / self.ratio[0]))))
        columns = np.where(found, columns, min(width, max(1, round(height * self.ratio[1]))))
        return _placed(chance[:, PLACE : PLACE + 2], rows, columns, height, width)

    def _random_erased(self, chance: np.ndarray, height: int, width: int) -> np.ndarray:
        """Boxes of the finished pictures; height and width 0 where none is to be erased or none was found."""
        rows, columns, found = _sizes(chance[:, ERASED_SIZES:WORDS], self.erase.area, self.erase.ratio, height, width)
        boxes = _placed(chance[:, ERASED_PLACE : ERASED_PLACE + 2], rows, columns, height, width)
        return np.where(found[:, None] & (chance[:, ERASES, None] < self.erase.probability), boxes, 0)

    def learn(self, images: Iterable[np.ndarray], folder: Path) -> None:
        """Learn what ``normalize=training_set`` needs from the training split, into ``folder``; else do nothing.

        Args:
            images: ``(height, width, channels)`` uint8 each.
        """
        if self.normalize != "training_set":
            return
        # of each byte in each channel: in large pictures they take a quarter of the time of sums and squares
        counts = np.zeros((0, 256), np.int64)
        for image in images:
            channels = image.reshape(-1, image.shape[-1]).T
            counts = counts if len(counts) else np.zeros((len(channels), 256), np.int64)
            for count, values in zip(counts, channels, strict=True):
                count += np.bincount(values, minlength=256)
        pixels = int(counts[:1].sum())
        mean = counts @ np.arange(256) / max(pixels, 1) / 255
        variance = np.maximum(counts @ np.arange(256) ** 2 / max(pixels, 1) / 255**2 - mean**2, 0.0)
        statistics.save(folder / STATISTICS, mean, variance)

    def load(self, folder: Path) -> dict[str, np.ndarray]:
        """What :meth:`learn` left: ``mean`` and ``variance`` of each channel, float64; empty where nothing was needed.

        Raises:
            DataError: there is nothing, or it is damaged.
        """
        if self.normalize != "training_set":
            return {}
        return statistics.load(folder / STATISTICS, "channel")

    def scale_shift(self, state: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What normalises a byte: ``byte * scale - shift``.

        A multiplication and a subtraction give the same bits everywhere; a division by a constant does not, for
        TensorFlow multiplies by its reciprocal instead. A channel without variance is only shifted.

        Args:
            state: of :meth:`load`.

        Returns:
            two arrays ``(channels,)`` float64, or ``(1,)`` where all channels share them.
        """
        if self.normalize == "none":
            return np.full(1, 1 / 255), np.zeros(1)
        if self.normalize == "given":
            mean, std = np.array(self.mean), np.array(self.std)
        else:
            mean, variance = state["mean"], state["variance"]
            std = np.sqrt(np.where(variance > 0, variance, 1.0))
        return 1 / (255 * std), mean / std

    def reference(
        self, image: np.ndarray, drawn: dict[str, Any], state: dict[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """One picture in numpy, before it is mixed with another: what both twins are held against.

        Args:
            image: ``(height, width, channels)`` uint8.
            drawn: of :meth:`draw`; its ``share`` is not looked at.
            state: of :meth:`load`; needed where ``normalize`` is ``training_set``.

        Returns:
            ``(height, width, channels)`` float64.
        """
        pixels = image.astype(np.float64)
        if self.moves:
            out_height, out_width, _ = self.shape(*image.shape)
            top, left, height, width = (int(value) for value in drawn["box"])
            if not self.resizes:
                height, width = out_height, out_width
            rows = sampling(top, height, False, out_height, image.shape[0])
            columns = sampling(left, width, bool(drawn["flip"]), out_width, image.shape[1])
            pixels = np.einsum("ih,hwc,jw->ijc", rows, pixels, columns)
        scale, shift = self.scale_shift(state or {})
        pixels = pixels * scale - shift
        top, left, height, width = drawn["erased"]
        pixels[top : top + height, left : left + width] = 0
        return pixels


def sampling(start: int, extent: int, flip: bool, size: int, length: int) -> np.ndarray:
    """The share of every pixel of a row (or column) of a picture in every pixel of the result, in numpy.

    Args:
        start: first pixel of the box; may be negative.
        extent: pixels of the box; some may lie beyond the picture.
        flip: whether the result is turned round.
        size: pixels of the result.
        length: pixels of the picture.

    Returns:
        ``(size, length)`` float64; a row sums to one where it needs nothing from beyond the picture.
    """
    box = np.arange(extent) + 0.5
    centre = (np.arange(size) + 0.5) * extent / size
    weights = np.maximum(0.0, 1 - np.abs(box - centre[:, None]) / max(extent / size, 1.0))
    weights /= weights.sum(1, keepdims=True)
    out = np.zeros((size, length))
    inside = (np.arange(extent) + start >= 0) & (np.arange(extent) + start < length)
    out[:, np.arange(extent)[inside] + start] = weights[:, inside]
    return out[::-1] if flip else out


def _ordered(field: str, bounds: tuple[float, float]) -> Iterator[tuple[str, str]]:
    if bounds[0] > bounds[1]:
        yield field, f"found {bounds[0]:g} before {bounds[1]:g}, expected the smaller first"


def _sizes(
    chance: np.ndarray, area: tuple[float, float], ratio: tuple[float, float], height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights and widths of boxes, even in area and in the logarithm of width over height.

    Args:
        chance: ``(batch, 2 * ATTEMPTS)``; of the attempts the first that fits counts.
        height, width: of the picture.

    Returns:
        heights, widths and whether any attempt did fit, ``(batch,)`` each.
    """
    pixels = height * width * (area[0] + chance[:, 0::2] * (area[1] - area[0]))
    shape = np.exp(np.log(ratio[0]) + chance[:, 1::2] * np.log(ratio[1] / ratio[0]))
    rows, columns = np.rint(np.sqrt(pixels / shape)), np.rint(np.sqrt(pixels * shape))
    fits = (rows >= 1) & (columns >= 1) & (rows <= height) & (columns <= width)
    first = np.arange(len(chance)), fits.argmax(1)
    return rows[first], columns[first], fits[first]


def _placed(chance: np.ndarray, rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes of these sizes at even places in the picture, ``(batch, 4)`` int32."""
    top, left = chance[:, 0] * (height - rows + 1) // 1, chance[:, 1] * (width - columns + 1) // 1
    return np.stack([top, left, rows, columns], axis=1).astype(np.int32)
