"""``dataset=fashion_mnist``, ``mnist``: 28 x 28 grey images in 10 classes, 60,000 for training and 10,000 for testing.

- Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): articles of clothing, MIT licence. Fetched as the Debian package
  ``dataset-fashion-mnist``, else from the hub, ``zalando-datasets/fashion_mnist``.
- MNIST (LeCun et al. 1998): handwritten digits. From the hub, ``ylecun/mnist``.

``dataset.path=FOLDER`` reads the four files of either, gzipped or not. Both have the official test split; the
validation split is carved from the training split, 10 % of each class by default. On the hub, the columns are image and
label, as the repositories' cards declare them. The loading is tested against a stand-in of the hub's interface; the hub
itself is untested here.
"""

from __future__ import annotations

import functools
import gzip
import math
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import numpy as np

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.datasets.base import HubFields, ImageDataset, Later, labelled, labelled_rows
from toolkit.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

CLOTHING = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
DIGITS = tuple("0123456789")
FILES = {  # split -> its images, their classes
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
LARGEST = 1 << 30  # bytes of an unpacked file

PACKAGE = "dataset-fashion-mnist"
VERSION = "0.0~git20200523.55506a9-1"
# fetch.checksum of the four files, unpacked, in the order of FILES
CHECKSUM = "51fea49bc1c5fdd55755b8ed20a548425d318af19d8b1c793045f26ee16c47e5"


@spec
class FourFiles(ImageDataset, HubFields):
    """Fields of both corpora, which consist of four files of the same format."""

    size: int | None = option(28, "height and width in pixels; 28: unchanged", ge=1, le=4096)
    channels: Literal[1, 3] | None = option(1, "1: grey, unchanged; 3: three equal channels")
    repeats: Literal["bad", "keep"] = option(
        "keep", "the same image in two splits or classes: bad, or kept and counted in the log"
    )
    path: str | None = option(None, "folder with the four files; null: fetched")


@spec
class MNIST(FourFiles):
    """Handwritten digits."""

    repository: str = option("ylecun/mnist", "repository on the hub, used without a path")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        if self.path:
            yield from local(Path(self.path), DIGITS)
        else:
            yield from _from_hub(self.repository, self.revision, DIGITS, cache)


@spec
class FashionMNIST(FourFiles):
    """Articles of clothing."""

    repository: str = option(
        "zalando-datasets/fashion_mnist", "repository on the hub, used if Debian's package is not available"
    )

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        from toolkit.data.sources import fetch

        if self.path:
            yield from local(Path(self.path), CLOTHING)
            return
        try:
            folder = _fetch(cache, progress)
        except fetch.FetchError as error:
            yield from self._from_hub(cache, str(error))
        else:
            yield from local(folder, CLOTHING)

    def _from_hub(self, cache: Path, first: str) -> Iterator[Example | Problem]:
        try:
            yield from _from_hub(self.repository, self.revision, CLOTHING, cache)
        except DataError as error:
            hint = "connect to the network, or get the four files elsewhere and set dataset.path=FOLDER"
            raise DataError(
                [first, *error.problems, hint], "cannot fetch Fashion-MNIST, in either of two ways:"
            ) from None


def _fetch(cache: Path, progress: Bars) -> Path:
    """Return the folder of Fashion-MNIST's files, fetched once by apt-get.

    Raises:
        FetchError: apt-get cannot fetch them.
        DataError: the files are not of the known version.
    """
    import tempfile

    from toolkit.data.sources import fetch

    def wanted(member: str) -> str | None:
        name = posixpath.basename(member)
        return name.removesuffix(".gz") if name.endswith("-ubyte.gz") else None  # unpack decompresses it

    target = cache / "downloads" / f"{PACKAGE}-{VERSION}"
    if target.exists():
        return target
    with fetch.beside(target) as folder:
        with tempfile.TemporaryDirectory(dir=folder) as packages:
            (archive,) = fetch.debian_packages([PACKAGE], Path(packages), progress)
            fetch.unpack(archive, folder, wanted)
        files = [folder / name for names in FILES.values() for name in names]
        missing = [file.name for file in files if not file.is_file()]
        checksum = f"none ({', '.join(missing)} missing)" if missing else fetch.checksum(files)
        if checksum != CHECKSUM:
            raise DataError(
                f"{archive.name}: the checksum of its files is {checksum}, expected {CHECKSUM} ({VERSION}): a damaged "
                "download, or another version"
            )
    return target


def _from_hub(repository: str, revision: str | None, names: Sequence[str], cache: Path) -> Iterator[Example | Problem]:
    from toolkit.data.sources import hub

    for split in ("train", "test"):
        rows = hub.rows(repository, None, split, revision, cache, ("label",), "image", {"label": names})
        yield from labelled_rows(rows, split, "label")


def local(root: Path, names: Sequence[str]) -> Iterator[Example | Problem]:
    """Yield the images of four files in the format of MNIST.

    Args:
        root: their folder.
        names: of the classes.
    """
    for split, file_names in FILES.items():
        paths = [_find(root, file_name) for file_name in file_names]
        if missing := [file_name for file_name, file in zip(file_names, paths, strict=True) if file is None]:
            where = f"dataset.path={root}"
            yield Problem(
                "missing file", where, f"found no {' and no '.join(missing)}, with .gz or without", fatal=True
            )
            continue
        images, labels = cast(list[Path], paths)
        try:
            shape, classes = _shape(images, 3), read(labels, 1)
        except DataError as error:
            yield Problem("damaged file", split, error.problems[0], fatal=True)
            continue
        if shape[0] != len(classes):
            message = f"{shape[0]:,} images, but {len(classes):,} classes in {labels.name}, expected as many"
            yield Problem("damaged file", images.name, message, fatal=True)
            continue
        yield from labelled(split, 0, classes.tolist(), names, Later(functools.partial(read, images, 3)), images)


def _find(root: Path, name: str) -> Path | None:
    other = name.replace("-idx", ".idx")  # the names that some tools give them
    return next((root / n for n in (name, f"{name}.gz", other, f"{other}.gz") if (root / n).is_file()), None)


def read(file: Path, axes: int) -> np.ndarray:
    """Read the uint8 array of a file in the IDX format (http://yann.lecun.com/exdb/mnist), gzipped or not.

    Raises:
        DataError: another format, another number of axes, truncated, or longer than the header declares.
    """
    shape = _shape(file, axes)
    size = math.prod(shape)
    try:
        with _open(file) as stream:
            stream.read(4 + 4 * axes)
            data = stream.read(size + 1)
    except (OSError, EOFError) as error:
        raise DataError(f"{file}: damaged or truncated ({error})") from error
    if len(data) != size:
        count = f"only {len(data):,}" if len(data) < size else "more"
        raise DataError(f"{file}: the header promises {size:,} values, {count} are there: damaged or truncated")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(file: Path, axes: int) -> tuple[int, ...]:
    """Read the shape from the header."""
    try:
        with _open(file) as stream:
            header = stream.read(4 + 4 * axes)
    except (OSError, EOFError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
    expected = bytes([0, 0, 8, axes])  # 8: unsigned bytes
    if header[:4] != expected or len(header) < 4 + 4 * axes:
        raise DataError(
            f"{file}: begins with bytes {header[:4].hex(' ')}, expected {expected.hex(' ')} and {axes} lengths"
        )
    shape = tuple(int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    if math.prod(shape) > LARGEST:
        raise DataError(f"{file}: promises {' x '.join(map(str, shape))} values, more than {LARGEST:,}, refused")
    return shape


def _open(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file) if file.suffix == ".gz" else file.open("rb"))
