"""Cache of decoded arrays (waveforms, images): one memory-mapped Arrow file per corpus, keyed by content.

``FOLDER/<content>.arrow`` holds the arrays; ``<content>`` is a hash of the undecoded bytes of all files and of the
decoder's key. ``FOLDER/<stamp>.json`` maps the paths, sizes and times of the files to it, so a second run reads and
decodes nothing. Both are written to a temporary file, synced and renamed: a reader sees a whole file or none, and the
last of two writers wins with the same content.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from toolkit.config import cores
from toolkit.data.example import Content, File
from toolkit.errors import RunError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

# Part of the keys: increment it when the layout of the files changes.
FORMAT = 2

# Errors that last until a file's identity changes; any other, as of a network drive, may be gone the next time.
LASTING = (errno.ENOENT, errno.EACCES)

# Size of a record batch, so that writing needs little memory.
BATCH_BYTES = 16 << 20


class Undecodable(Exception):
    """Error of a file that cannot be used.

    Args:
        kind: a few words by which problems are counted.
        message: what was found and what was expected.
        passing: the error may be gone the next time although the file has not changed.
    """

    def __init__(self, kind: str, message: str, passing: bool = False) -> None:
        self.kind, self.message, self.passing = kind, message, passing
        super().__init__(f"{kind}: {message}")


@dataclass(frozen=True)
class Store:
    """Decoded files: row r of the file ``path``, or of the arrays in memory, is the one at ``positions[r]``."""

    path: Path | tuple[np.ndarray, ...]
    positions: list[int]
    shapes: list[tuple[int, ...]]
    digests: list[str]  # SHA-256 of the undecoded content
    problems: list[tuple[int, str, str]]  # position, kind, message
    partial: list[int] = dataclasses.field(default_factory=list)  # positions of files of which a part was decoded


@dataclass(frozen=True)
class Partial:
    """The array of a file of which only a part was decoded, for the user to know."""

    array: np.ndarray


@dataclass(frozen=True)
class Decoder:
    """A conversion of content to an array.

    Args:
        decode: (content, file name) -> array of ``dtype``, or :class:`Partial`; raises :class:`Undecodable`.
        dtype: of all arrays.
        key: changes whenever the same content would be decoded to another array.
        title: of the progress bar.
    """

    decode: Callable[[Any, str], np.ndarray | Partial]
    dtype: type
    key: str
    title: str


def file_identity(path: Path) -> str:
    """Return a string that changes when the file changes, without reading the file."""
    try:
        stat = path.stat()
    except OSError:
        return f"{path.absolute()} is gone"
    # With the change time, copying an older file over a newer one, or setting its times, is noticed.
    return f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def store(files: Sequence[File], decoder: Decoder, folder: Path | None, progress: Bars) -> Store:
    """Decode the files that are not in the cache yet.

    Args:
        files: all files of the corpus.
        decoder: converts them to arrays.
        folder: the cache folder of this kind of array; None: decode into memory, without a cache.
        progress: running progress bars.

    Raises:
        RunError: the cache cannot be written.
    """
    if folder is None:
        return _hold(files, decoder, progress)
    index = folder / f"{_stamp(files, decoder)}.json"
    if cached := _open(index):
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _fill(files, decoder, index, progress)
    except OSError as error:
        raise RunError(
            f"cannot write {folder}: {error.strerror or error}; set TOOLKIT_CACHE to another folder"
        ) from error


def _hold(files: Sequence[File], decoder: Decoder, progress: Bars) -> Store:
    """Decode files into memory, without the cache."""
    arrays: list[np.ndarray] = []
    decoded = Store((), [], [], [], [])
    for position, (digest, result) in enumerate(_decoded(files, decoder, progress)):
        if isinstance(result, Undecodable):
            decoded.problems.append((position, result.kind, result.message))
            continue
        if isinstance(result, Partial):
            decoded.partial.append(position)
            result = result.array
        arrays.append(result)
        decoded.positions.append(position)
        decoded.shapes.append(result.shape)
        decoded.digests.append(digest)
    return dataclasses.replace(decoded, path=tuple(arrays))


def values(path: Path | tuple[np.ndarray, ...], row: int) -> np.ndarray:
    """Return a read-only flat view of one row of a :class:`Store`."""
    if not isinstance(path, Path):
        return path[row].reshape(-1)
    starts, chunks = _map(path)
    chunk = int(np.searchsorted(starts, row, side="right")) - 1
    offsets, flat = chunks[chunk]
    local = row - int(starts[chunk])
    return flat[offsets[local] : offsets[local + 1]]


def stacked(path: Path | tuple[np.ndarray, ...], rows: np.ndarray) -> np.ndarray:
    """Return a ``(len(rows), size)`` copy of rows of a :class:`Store` whose arrays all have the same size."""
    if not isinstance(path, Path):
        return np.stack([path[row].reshape(-1) for row in rows]) if len(rows) else np.zeros((0, 0), np.uint8)
    starts, chunks = _map(path)
    if len(chunks) == 1:
        return chunks[0][1].reshape(len(chunks[0][0]) - 1, -1)[rows]
    of_chunk = np.searchsorted(starts, rows, side="right") - 1
    out: np.ndarray | None = None
    for chunk in np.unique(of_chunk):
        offsets, flat = chunks[chunk]
        mask = of_chunk == chunk
        block = flat.reshape(len(offsets) - 1, -1)[rows[mask] - starts[chunk]]
        out = np.empty((len(rows), block.shape[1]), block.dtype) if out is None else out
        out[mask] = block
    return np.zeros((0, 0), np.uint8) if out is None else out


def _stamp(files: Sequence[File], decoder: Decoder) -> str:
    digest = hashlib.sha256(f"{FORMAT} {decoder.key}\n".encode())
    for file in files:
        digest.update(f"{file.file_name}\0{_identity(file)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _identity(file: File) -> str:
    """Return a string that is equal for equal content, without reading a file."""
    if file.stamp:
        return file.stamp
    if isinstance(file.content, Path):
        return file_identity(file.content)
    if isinstance(file.content, (bytes, np.ndarray)):
        return _digest(file.content)
    raise TypeError(f"{file.file_name}: content that is read later needs a stamp")


def _read_content(file: File) -> Content:
    if isinstance(file.content, Path):
        return file.content.read_bytes()
    return file.content if isinstance(file.content, (bytes, np.ndarray)) else file.content()


def _digest(content: Content) -> str:
    if isinstance(content, np.ndarray):
        content = f"{content.shape} {content.dtype}\n".encode() + content.tobytes()
    return hashlib.sha256(content).hexdigest()


def _open(index: Path) -> Store | None:
    """Open the store that an index refers to; None if the index or its Arrow file is missing or damaged."""
    import pyarrow as pa

    try:
        entry = json.loads(index.read_text(encoding="utf-8"))
        problems = [(int(i), kind, text) for i, kind, text in entry["problems"]]
        return _read(index.parent / entry["file"], problems, [int(i) for i in entry["partial"]])
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None


def _read(path: Path, problems: list[tuple[int, str, str]], partial: list[int]) -> Store:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        positions, shapes, digests = (table.column(name).to_pylist() for name in ("position", "shape", "digest"))
    return Store(path, positions, [tuple(shape) for shape in shapes], digests, problems, partial)


@functools.lru_cache(maxsize=8)
def _map(path: Path) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Map a file: the first row of each record batch, and its offsets and values as views of the mapped file."""
    import pyarrow as pa

    column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("values")
    chunks = [(c.offsets.to_numpy(), c.values.to_numpy(zero_copy_only=True)) for c in column.chunks if len(c)]
    rows = [len(offsets) - 1 for offsets, _ in chunks]
    return np.cumsum([0, *rows[:-1]]), chunks


def _fill(files: Sequence[File], decoder: Decoder, index: Path, progress: Bars) -> Store:
    import pyarrow as pa

    schema = pa.schema(
        {
            "position": pa.int64(),
            "shape": pa.list_(pa.int32()),
            "digest": pa.string(),
            "values": pa.large_list(pa.from_numpy_dtype(decoder.dtype)),
        }
    )
    content = hashlib.sha256(f"{FORMAT} {decoder.key}\n".encode())
    problems: list[tuple[int, str, str]] = []
    partial: list[int] = []
    passing = False  # then no index is written, and the next run tries again
    with _atomic_file(index.parent) as (file, rename), pa.ipc.new_file(file, schema) as writer:
        batch: list[tuple[int, str, np.ndarray]] = []
        waiting = 0  # bytes in the batch
        for position, (digest, result) in enumerate(_decoded(files, decoder, progress)):
            # A bad file is marked too, since its file name may be the reason.
            content.update(f"{digest} {'bad' if isinstance(result, Undecodable) else ''}\n".encode())
            if isinstance(result, Undecodable):
                problems.append((position, result.kind, result.message))
                passing |= result.passing
                continue
            if isinstance(result, Partial):
                partial.append(position)
                result = result.array
            batch.append((position, digest, result))
            waiting += result.nbytes
            if waiting >= BATCH_BYTES:
                writer.write_batch(_batch(batch, schema, decoder.dtype))
                batch, waiting = [], 0
        writer.write_batch(_batch(batch, schema, decoder.dtype))
        writer.close()
        path = index.parent / f"{content.hexdigest()}.arrow"
        rename(path)
    if not passing:
        with _atomic_file(index.parent) as (file, rename):
            file.write(json.dumps({"file": path.name, "problems": problems, "partial": partial}).encode())
            rename(index)
    return _read(path, problems, partial)


def _batch(rows: list[tuple[int, str, np.ndarray]], schema: Any, dtype: type) -> Any:
    import pyarrow as pa

    arrays = [array for _, _, array in rows]
    offsets = np.concatenate([[0], np.cumsum([array.size for array in arrays], dtype=np.int64)])
    if len(arrays) == 1:
        flat = arrays[0].reshape(-1)  # not copied: it may be an hour of audio
    else:
        flat = np.concatenate([np.zeros(0, dtype), *(array.reshape(-1) for array in arrays)])
    positions, digests = [position for position, _, _ in rows], [digest for _, digest, _ in rows]
    columns = [
        pa.array(positions, pa.int64()),
        pa.array([array.shape for array in arrays], pa.list_(pa.int32())),
        pa.array(digests, pa.string()),
        pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(flat)),
    ]
    return pa.record_batch(columns, schema)


def _decoded(
    files: Sequence[File], decoder: Decoder, progress: Bars
) -> Iterator[tuple[str, np.ndarray | Partial | Undecodable]]:
    """Yield digest and array of every file in order, decoded by threads that run at most a few files ahead."""

    def work(file: File) -> tuple[str, np.ndarray | Partial | Undecodable]:
        try:
            content = _read_content(file)
        except OSError as error:
            passing = not isinstance(file.content, Path) or error.errno not in LASTING
            return "", Undecodable("unreadable", f"{error.strerror or error}", passing)
        except Undecodable as bad:  # of a function that reads a part of a file
            return "", bad
        digest = _digest(content)
        try:
            return digest, decoder.decode(content, file.file_name)
        except Undecodable as bad:
            return digest, bad

    from concurrent.futures import ThreadPoolExecutor  # here, because composing a config imports this file

    workers = min(8, cores.count())
    task = progress.add_task(decoder.title, total=len(files))
    ahead: deque[Any] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for file in files:
            ahead.append(pool.submit(work, file))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
                progress.advance(task)
        while ahead:
            yield ahead.popleft().result()
            progress.advance(task)


@contextlib.contextmanager
def _atomic_file(folder: Path) -> Iterator[tuple[BinaryIO, Callable[[Path], None]]]:
    """Open a new file in ``folder``, and yield it with a function that renames it; without that call it is removed."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")

    def rename(path: Path) -> None:
        file.flush()
        os.fsync(file.fileno())
        os.replace(name, path)

    with os.fdopen(descriptor, "wb") as file:
        try:
            yield file, rename
        finally:
            Path(name).unlink(missing_ok=True)
