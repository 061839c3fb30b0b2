"""Decoded audio in one memory-mapped Arrow file a corpus, keyed by content.

``FOLDER/audio/<content>.arrow`` holds the waveforms, where ``<content>`` hashes the bytes of all recordings, the
sample rate and the decoder's version. ``FOLDER/audio/<stamp>.json`` leads to it from the paths, sizes and times of
the files, so that a second run reads no audio. Both are written beside, synced and renamed: a reader sees a whole
file or none, and of two writers the last one wins with the same content.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from toolkit import audio
from toolkit.errors import RunError
from toolkit.speech import Recording

# Samples in a record batch: 16 MiB of float32, so that writing needs little memory.
BATCH_SAMPLES = 4 << 20


@dataclass(frozen=True)
class Store:
    """The decoded recordings: row r of the file ``path`` is recording ``positions[r]`` of those given."""

    path: Path
    positions: list[int]
    lengths: list[int]  # samples
    digests: list[str]  # SHA-256 of the undecoded bytes
    problems: list[tuple[int, str, str]]  # recording, kind, message


def store(recordings: list[Recording], sample_rate: int, cache: Path, progress: Any) -> Store:
    """Decode what is not in the cache yet.

    Args:
        recordings: all recordings of the corpus.
        sample_rate: in Hz.
        cache: the cache folder.
        progress: a running ``rich.progress.Progress``.

    Raises:
        RunError: the cache cannot be written.
    """
    folder = cache / "audio"
    index = folder / f"{_stamp(recordings, sample_rate)}.json"
    if found := _open(index):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _decode(recordings, sample_rate, index, progress)
    except OSError as error:
        raise RunError(
            f"cannot write {folder}: {error.strerror or error}; TOOLKIT_CACHE names another folder"
        ) from error


def waveform(path: Path, row: int) -> np.ndarray:
    """``(samples,)`` float32 view of one row of a cache file."""
    starts, chunks = _map(path)
    chunk = int(np.searchsorted(starts, row, side="right")) - 1
    offsets, values = chunks[chunk]
    local = row - int(starts[chunk])
    return values[offsets[local] : offsets[local + 1]]


def _stamp(recordings: list[Recording], sample_rate: int) -> str:
    digest = hashlib.sha256(f"{audio.VERSION} {sample_rate}\n".encode())
    for recording in recordings:
        digest.update(f"{recording.file_name}\0{_identity(recording)}\0".encode())
    return digest.hexdigest()


def _identity(recording: Recording) -> str:
    if recording.stamp:
        return recording.stamp
    if isinstance(recording.audio, bytes):
        return hashlib.sha256(recording.audio).hexdigest()
    if not isinstance(recording.audio, Path):
        raise TypeError(f"{recording.id}: audio that is read later needs a stamp")
    try:
        stat = recording.audio.stat()
    except OSError:
        return f"{recording.audio.absolute()} is gone"
    # The change time too: copying an older file over a newer one, or setting its times, is seen.
    return f"{recording.audio.absolute()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _open(index: Path) -> Store | None:
    """What an index leads to; None where it, or its Arrow file, is missing or damaged."""
    import pyarrow as pa

    try:
        known = json.loads(index.read_text(encoding="utf-8"))
        path = index.parent / known["file"]
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            positions, lengths, digests = (table.column(name).to_pylist() for name in ("position", "length", "digest"))
        return Store(path, positions, lengths, digests, [(int(i), kind, text) for i, kind, text in known["problems"]])
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None


@functools.lru_cache(maxsize=8)
def _map(path: Path) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """First row of each record batch, and its offsets and samples as views of the mapped file."""
    import pyarrow as pa

    column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("samples")
    chunks = [(c.offsets.to_numpy(), c.values.to_numpy(zero_copy_only=True)) for c in column.chunks]
    rows = [len(offsets) - 1 for offsets, _ in chunks]
    return np.cumsum([0, *rows[:-1]]), chunks


def _decode(recordings: list[Recording], sample_rate: int, index: Path, progress: Any) -> Store:
    import pyarrow as pa

    schema = pa.schema(
        {"position": pa.int64(), "length": pa.int64(), "digest": pa.string(), "samples": pa.large_list(pa.float32())}
    )
    content = hashlib.sha256(f"{audio.VERSION} {sample_rate}\n".encode())
    problems: list[tuple[int, str, str]] = []
    with _written_beside(index.parent) as (file, rename), pa.ipc.new_file(file, schema) as writer:
        batch: list[tuple[int, str, np.ndarray]] = []
        for position, (digest, result) in enumerate(_decoded(recordings, sample_rate, progress)):
            content.update(f"{digest}\n".encode())
            if isinstance(result, audio.BadAudio):
                problems.append((position, result.kind, result.message))
                continue
            batch.append((position, digest, result))
            if sum(len(samples) for _, _, samples in batch) >= BATCH_SAMPLES:
                writer.write_batch(_batch(batch, schema))
                batch = []
        writer.write_batch(_batch(batch, schema))
        writer.close()
        path = index.parent / f"{content.hexdigest()}.arrow"
        rename(path)
    with _written_beside(index.parent) as (file, rename):
        file.write(json.dumps({"file": path.name, "problems": problems}).encode())
        rename(index)
    found = _open(index)
    if found is None:
        raise OSError(f"{path.name} cannot be read back")
    return found


def _batch(rows: list[tuple[int, str, np.ndarray]], schema: Any) -> Any:
    import pyarrow as pa

    waveforms = [samples for _, _, samples in rows]
    lengths = np.array([len(samples) for samples in waveforms], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.concatenate([np.zeros(0, np.float32), *waveforms])
    samples = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values))
    positions, digests = [position for position, _, _ in rows], [digest for _, digest, _ in rows]
    return pa.record_batch([pa.array(positions, pa.int64()), lengths, pa.array(digests, pa.string()), samples], schema)


def _decoded(
    recordings: list[Recording], sample_rate: int, progress: Any
) -> Iterator[tuple[str, np.ndarray | audio.BadAudio]]:
    """Digest and waveform of every recording in order, decoded by threads that run at most a few ahead."""

    def work(recording: Recording) -> tuple[str, np.ndarray | audio.BadAudio]:
        try:
            data = recording.read()
        except OSError as error:
            return "", audio.BadAudio("unreadable", f"{error.strerror or error}")
        digest = hashlib.sha256(data).hexdigest()
        try:
            return digest, audio.decode(data, recording.file_name, sample_rate)
        except audio.BadAudio as bad:
            return digest, bad

    workers = min(8, os.cpu_count() or 1)
    task = progress.add_task("decoding audio", total=len(recordings))
    ahead: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for recording in recordings:
            ahead.append(pool.submit(work, recording))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
                progress.advance(task)
        while ahead:
            yield ahead.popleft().result()
            progress.advance(task)


@contextlib.contextmanager
def _written_beside(folder: Path) -> Iterator[tuple[BinaryIO, Callable[[Path], None]]]:
    """A new file in ``folder`` and the function that gives it its name; without that call it is removed."""
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
