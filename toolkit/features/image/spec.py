"""Image features: crop, resize, flip, normalize, erase and mix."""

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

STATISTICS = "image.json"  # written by `learn` into the run folder
ATTEMPTS = 10  # to draw a box that fits into the image, as in torchvision

# Position of each random number in the stream of an example, so that one option does not change the draws of another.
PLACE, FLIP, ERASES, SHARE, ERASED_PLACE, SIZES, ERASED_SIZES = 0, 2, 3, 4, 6, 8, 8 + 2 * ATTEMPTS
WORDS = ERASED_SIZES + 2 * ATTEMPTS


@spec
class Erase:
    """Random erasing of a box in training images (Zhong et al. 2017, "Random Erasing Data Augmentation", algorithm 1).

    Erased pixels are zero after normalization, the mean of their channel: the paper's variant "RE-M". The defaults are
    those of its experiments. Tall and wide boxes are equally likely.
    """

    probability: float = option(
        default=0.0, doc="probability of erasing a box of an image; 0.5 in the paper", ge=0, le=1
    )
    area: tuple[float, float] = option(
        default=(0.02, 0.4), doc="smallest and largest area of the box, as fractions of the image", gt=0, le=1
    )
    ratio: tuple[float, float] = option(
        default=(0.3, 1 / 0.3), doc="smallest and largest ratio of width to height of the box", gt=0
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from _ordered("area", self.area)
        yield from _ordered("ratio", self.ratio)


@spec
class Image:
    """Normalized pixels, with the augmentation of training images.

    Crop, resize and flip are one linear map, separable into rows and columns: bilinear interpolation between pixel
    centres, with the triangle widened by the scale when an image shrinks (antialiasing), and black beyond the edges.
    Pixels are copied if nothing is resized.
    """

    column: ClassVar[str] = "image"  # kind of column that these are features of

    size: int | None = option(
        None, "height and width of the model's input in pixels; null = the size of the images", ge=1
    )
    crop: Literal["none", "pad", "random_resized"] = option(
        "none",
        "crop of training images; none: the whole image; pad: a box of the image's size after padding with black "
        "(He et al. 2015, section 4.2); random_resized: a box of random area and ratio, resized (Szegedy et al. 2015, "
        "section 6)",
    )
    padding: int = option(4, "pad: black pixels on each side", ge=0)
    area: tuple[float, float] = option(
        (0.08, 1.0), "random_resized: smallest and largest area of the box, as fractions of the image", gt=0, le=1
    )
    ratio: tuple[float, float] = option(
        (3 / 4, 4 / 3), "random_resized: smallest and largest ratio of width to height of the box", gt=0
    )
    flip: float = option(0.0, "probability of flipping a training image left to right", ge=0, le=1)
    erase: Erase = option(Erase(), "random erasing of a box in training images")
    mixup: float = option(
        0.0,
        "alpha: the weight of a training image in its mixture with another is drawn from Beta(alpha, alpha) (Zhang et "
        "al. 2018); 0 = no mixing",
        ge=0,
    )
    normalize: Literal["training_set", "given", "none"] = option(
        "training_set",
        "normalize each channel to mean 0 and variance 1 over the training split, by `mean` and `std` (given), or not "
        "(pixels from 0 to 1)",
    )
    mean: tuple[float, ...] = option((), "given: mean of each channel; white is 1")
    std: tuple[float, ...] = option((), "given: standard deviation of each channel; white is 1", gt=0)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from _ordered("area", self.area)
        yield from _ordered("ratio", self.ratio)
        if self.normalize == "given" and not self.mean:
            yield "mean", "not set, but features.normalize=given needs a value for each channel"
        if self.normalize != "given" and (self.mean or self.std):
            yield (
                "normalize",
                (f"{self.normalize} is not supported with features.mean or features.std; set features.normalize=given"),
            )
        elif len(self.mean) != len(self.std):
            yield "std", f"found {len(self.std)} values, expected {len(self.mean)}, one for each of mean"

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Mixup mixes images of one device."""
        if self.mixup and run.trainer.total_devices > 1:
            yield (
                "mixup",
                f"{self.mixup} is not supported with {run.trainer.total_devices} devices; set features.mixup=0",
            )

    @property
    def moves(self) -> bool:
        """True if images are cropped, resized or flipped; otherwise boxes and flips are ignored."""
        return self.size is not None or self.crop != "none" or self.flip > 0

    @property
    def resizes(self) -> bool:
        """True if pixels are interpolated; otherwise they are copied."""
        return self.size is not None or self.crop == "random_resized"

    def shape(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """Return height, width and channels of the model's input for images of this shape.

        Raises:
            ConfigError: ``mean`` and ``std`` have another number of channels.
        """
        if self.normalize == "given" and len(self.mean) != channels:
            raise ConfigError(
                f"features.mean: found {len(self.mean)} values, expected {channels}, one for each channel"
            )
        return (self.size or height, self.size or width, channels)

    def whole(self, height: int, width: int) -> np.ndarray:
        """Return the box of a whole image: ``(4,)`` int32, top, left, height and width in pixels."""
        return np.array([0, 0, height, width], np.int32)

    def draw_batch(self, height: int, width: int, seed: int, epoch: int, examples: np.ndarray) -> dict[str, np.ndarray]:
        """Draw the augmentation of a batch of training images.

        The draws of an example depend only on (seed, epoch, example), not on backend, batch or worker; ``partners`` are
        rows of the batch.

        Args:
            height, width: size of the images in pixels.
            seed, epoch: key the draws.
            examples: ``(batch,)`` positions in the split.

        Returns:
            the fields ``boxes``, ``flips``, ``erased``, ``partners`` and ``shares`` of
            ``toolkit.data.columns.image.AUGMENTATION``.
        """
        count = len(examples)
        drawn = {
            "boxes": np.tile(self.whole(height, width), (count, 1)),
            "flips": np.zeros(count, np.bool_),
            "erased": np.zeros((count, 4), np.int32),
            "partners": np.roll(np.arange(count, dtype=np.int32), -1),  # the plan has shuffled
            "shares": np.ones(count, np.float32),
        }
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
        """Draw boxes as torchvision does: if no attempt fits, the largest box of an allowed ratio; then the place."""
        rows, columns, fits = _sizes(chance[:, SIZES:ERASED_SIZES], self.area, self.ratio, height, width)
        rows = np.where(fits, rows, min(height, max(1, round(width / self.ratio[0]))))
        columns = np.where(fits, columns, min(width, max(1, round(height * self.ratio[1]))))
        return _placed(chance[:, PLACE : PLACE + 2], rows, columns, height, width)

    def _random_erased(self, chance: np.ndarray, height: int, width: int) -> np.ndarray:
        """Draw boxes to erase from the cropped images; height and width are 0 for none."""
        rows, columns, fits = _sizes(chance[:, ERASED_SIZES:WORDS], self.erase.area, self.erase.ratio, height, width)
        boxes = _placed(chance[:, ERASED_PLACE : ERASED_PLACE + 2], rows, columns, height, width)
        return np.where(fits[:, None] & (chance[:, ERASES, None] < self.erase.probability), boxes, 0)

    def learn(self, images: Iterable[np.ndarray], folder: Path) -> None:
        """Write the statistics of the training split into ``folder`` if ``normalize`` is ``training_set``.

        Args:
            images: ``(height, width, channels)`` uint8 each.
        """
        if self.normalize != "training_set":
            return
        # histograms of each channel: for large images they take a quarter of the time of sums and squares
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
        """Read what :meth:`learn` wrote: ``mean`` and ``variance`` of each channel, float64; empty if not needed.

        Raises:
            DataError: the file does not exist or is damaged.
        """
        if self.normalize != "training_set":
            return {}
        return statistics.load(folder / STATISTICS, "channel")

    def scale_shift(self, state: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and shift that normalize a byte: ``byte * scale - shift``.

        A multiplication and a subtraction give the same bits on both backends. A division by a constant does not,
        because TensorFlow multiplies by its reciprocal. A channel without variance is only shifted.

        Args:
            state: result of :meth:`load`.

        Returns:
            two arrays ``(channels,)`` float64, or ``(1,)`` if all channels have the same.
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
        """Compute one image in numpy, before it is mixed with another, as the reference of both twins.

        Args:
            image: ``(height, width, channels)`` uint8.
            drawn: the image's row of ``boxes``, ``flips`` and ``erased`` of :meth:`draw_batch`.
            state: result of :meth:`load`; required if ``normalize`` is ``training_set``.

        Returns:
            ``(height, width, channels)`` float64.
        """
        pixels = image.astype(np.float64)
        if self.moves:
            out_height, out_width, _ = self.shape(*image.shape)
            top, left, height, width = (int(value) for value in drawn["boxes"])
            if not self.resizes:
                height, width = out_height, out_width
            rows = sampling(top, height, False, out_height, image.shape[0])
            columns = sampling(left, width, bool(drawn["flips"]), out_width, image.shape[1])
            pixels = np.einsum("ih,hwc,jw->ijc", rows, pixels, columns)
        scale, shift = self.scale_shift(state or {})
        pixels = pixels * scale - shift
        top, left, height, width = drawn["erased"]
        pixels[top : top + height, left : left + width] = 0
        return pixels


def sampling(start: int, extent: int, flip: bool, size: int, length: int) -> np.ndarray:
    """Compute the weight of every pixel of a row (or column) of an image in every pixel of the result, in numpy.

    Args:
        start: first pixel of the box; may be negative.
        extent: pixels of the box; some may lie beyond the image.
        flip: True reverses the result.
        size: pixels of the result.
        length: pixels of the image.

    Returns:
        ``(size, length)`` float64; a row sums to one if it needs no pixel beyond the image.
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
        yield field, f"found {bounds[0]:g}, {bounds[1]:g}, expected the smaller first"


def _sizes(
    chance: np.ndarray, area: tuple[float, float], ratio: tuple[float, float], height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw heights and widths of boxes, uniform in area and in the logarithm of the ratio of width to height.

    Args:
        chance: ``(batch, 2 * ATTEMPTS)`` random numbers; the first attempt that fits counts.
        height, width: size of the image.

    Returns:
        heights, widths, and True where an attempt fits, ``(batch,)`` each.
    """
    pixels = height * width * (area[0] + chance[:, 0::2] * (area[1] - area[0]))
    shape = np.exp(np.log(ratio[0]) + chance[:, 1::2] * np.log(ratio[1] / ratio[0]))
    rows, columns = np.rint(np.sqrt(pixels / shape)), np.rint(np.sqrt(pixels * shape))
    fits = (rows >= 1) & (columns >= 1) & (rows <= height) & (columns <= width)
    first = np.arange(len(chance)), fits.argmax(1)
    return rows[first], columns[first], fits[first]


def _placed(chance: np.ndarray, rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> np.ndarray:
    """Place boxes of these sizes uniformly in the image: ``(batch, 4)`` int32."""
    top, left = chance[:, 0] * (height - rows + 1) // 1, chance[:, 1] * (width - columns + 1) // 1
    return np.stack([top, left, rows, columns], axis=1).astype(np.int32)
