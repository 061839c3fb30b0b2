"""Sharded data sets: Parquet, WebDataset (tar) or TFRecord files, in a folder or on the Hugging Face hub.

A shard is read sequentially, from its start or from any record, so a run can train on more data than fits into memory
or on disk (``toolkit/data/stream.py``). Neither framework is needed.

In a folder, the files of a split are in a folder with its name, or their names begin with it: ``train/0000.tar``,
``train-00000-of-00010.parquet``, ``val-3.tfrecord``.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from toolkit.data import cache
from toolkit.data.example import SPLITS, Example
from toolkit.data.problems import Problem, nearest
from toolkit.data.source import Source
from toolkit.data.sources import tfrecord
from toolkit.data.sources.folder import ALIASES, name_in, split_of, unusable
from toolkit.errors import DataError

RECORD = 10_240  # bytes; a tar is padded with zeros to a multiple of it
BLOCK = 64  # Parquet records that are decoded at a time
LAYOUT = "train-*.parquet (or .tar, .tfrecord), validation-* and test-*, or a folder of each split"
PACKED = re.compile(r"\.tgz$|\.(tar|parquet|tfrecords?)(-\d+-of-\d+)?\.(gz|bz2|xz|zst)$")
BAD = "__bad__"  # in a record: kind and message of what is wrong with it
METADATA = "json"  # in a WebDataset record: the file with its other fields
KEY = "__key__"  # in a WebDataset record: the name that its files share


@dataclass(frozen=True)
class Row:
    """One record; its file (a recording or an image) is read on demand.

    Args:
        fields: its other fields.
        read: returns the content of the file.
        file_name: name of the file; the suffix gives the format.
        where: name of the record in messages.
        stamp: changes whenever the file changes.
        number: unique in the split: "00003-000017".
    """

    fields: Mapping[str, Any]
    read: Callable[[], bytes]
    file_name: str
    where: str
    stamp: str
    number: str = ""


def converted(dataset: Source, split: str, rows: Iterable[Row | Problem]) -> Iterator[Example | Problem | None]:
    """Convert the rows of a split by ``dataset.example``, which returns None to skip one."""
    return (row if isinstance(row, Problem) else dataset.example(split, row) for row in rows)


def short(error: Exception) -> str:
    """Return the kind and the first line of an error."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"


def bad_label(label: int, names: Sequence[str]) -> str:
    """Return what is wrong with the number of a class; empty if there is such a class."""
    # the hub writes -1 where the class is unknown
    return "" if 0 <= label < len(names) else f"found class {label}, expected 0 to {len(names) - 1}"


@dataclass(frozen=True)
class Shard:
    """One file: its path or URL, its name in messages, and its size in bytes if known."""

    url: str
    where: str
    size: int | None = None


@dataclass(frozen=True)
class Shards:
    """The files of a split.

    Args:
        files: in order.
        wanted: field -> its possible names in the files; the first one present is used.
        content: the field that holds a file.
    """

    files: Sequence[Shard]
    wanted: Mapping[str, Sequence[str]]
    content: str | None = None

    def examples(self, dataset: Source, split: str, number: int, start: int = 0) -> Iterator[Example | Problem | None]:
        """Convert the records of a shard, starting at ``start``: to an example, a problem, or None to skip it.

        Raises:
            DataError: the shard cannot be read, or its columns lack a field.
        """
        yield from converted(dataset, split, self.rows(number, start))

    def all_examples(self, dataset: Source, split: str) -> Iterator[Example | Problem]:
        """Convert all records of all shards, without those to skip."""
        for number in range(len(self.files)):
            yield from filter(None, self.examples(dataset, split, number))

    def rows(self, number: int, start: int = 0) -> Iterator[Row | Problem]:
        """Yield the records of a shard, starting at ``start``, or the problems with them.

        Raises:
            DataError: the shard cannot be read, or its columns lack a field.
        """
        shard, i = self.files[number], start
        local = "://" not in shard.url
        identity = cache.file_identity(Path(shard.url)) if local else shard.url
        try:
            with _open(shard.url) as file:
                for record in READERS[_suffix(shard.url)](file, start, self.wanted):
                    key = f" ({record[KEY]})" if KEY in record and not self.content else ""  # else the file has a name
                    where = f"{shard.where}, record {i}{key}"
                    yield self._row(record, where, f"{identity} {i}", f"{number:05}-{i:07}")
                    i += 1
        except _Lacking as error:
            raise DataError(f"{shard.where}: {error}") from error
        except Exception as error:  # an error of the file's library, or of the network
            advice = "copy the file again, or remove it" if local else "check the network, then resume or start again"
            message = f"cannot be read ({short(error)}); {advice}"
            raise DataError(f"{shard.where}, record {i}: {message}") from error

    def _row(self, record: Mapping[str, Any], where: str, stamp: str, number: str) -> Row | Problem:
        if BAD in record:
            kind, message = record[BAD]
            return Problem(kind, where, message)
        fields = {}
        content, file_name = b"", ""
        for name, choices in self.wanted.items():
            key = next((choice for choice in choices if record.get(choice) is not None), None)
            if key is None:
                return Problem("missing field", where, _lacking(name, choices, record))
            value = record[key]
            if name != self.content:
                fields[name] = value.decode("utf-8", "surrogateescape").strip() if isinstance(value, bytes) else value
                continue
            data, file_name = _file(value, key, record)
            if not isinstance(data, bytes):
                return Problem(
                    "wrong type", where, f"found {str(value)[:60]!r} as the {name}, expected the bytes of the file"
                )
            content = data
        return Row(fields, lambda: content, file_name, where, stamp, number)


def _lacking(name: str, choices: Sequence[str], found: Iterable[str]) -> str:
    has = ", ".join(key for key in found if key != KEY) or "nothing"
    return f"found {has}, expected one of {', '.join(choices)} for the {name}"


class _Lacking(Exception):
    """Error of a file whose records lack a field."""


def _file(value: Any, field: str, record: Mapping[str, Any]) -> tuple[Any, str]:
    """Return content and name of a file: the hub's Parquet has both in one field, a tar names it by the field."""
    if isinstance(value, Mapping):
        return value.get("bytes"), PurePosixPath(value.get("path") or "").name
    return value, f"{record[KEY]}.{field}" if KEY in record else ""


def _suffix(url: str) -> str:
    name = PurePosixPath(url).name
    return ".tfrecord" if re.search(r"\.tfrecords?(-\d+-of-\d+)?$", name) else PurePosixPath(name).suffix


def readable(url: str) -> bool:
    """Return True for a file in one of the formats of this module."""
    return _suffix(url) in READERS


def _open(url: str) -> Any:
    if "://" not in url:
        return open(url, "rb")
    import fsspec

    return fsspec.open(url, "rb").open()


# --- formats ---------------------------------------------------------------------------------------------------------


def _parquet(file: BinaryIO, start: int, wanted: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        for name, choices in wanted.items():
            if not set(choices) & set(table.schema_arrow.names):
                raise _Lacking(_lacking(name, choices, table.schema_arrow.names))
        columns = [name for choices in wanted.values() for name in choices if name in table.schema_arrow.names]
        labels = {name: names for name, names in _labels(table.schema_arrow).items() if name in columns}
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if start < rows:
                for batch in table.iter_batches(BLOCK, [group], columns, use_threads=False):
                    for record in batch.slice(min(start, len(batch))).to_pylist():
                        yield record | _named(record, labels, wanted)
                    start = max(0, start - len(batch))
            else:
                start -= rows
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _named(
    record: dict[str, Any], labels: Mapping[str, Sequence[str]], wanted: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return the names of a record's classes; or what is wrong with a number, if no other column has the class."""
    numbers = {column: record[column] for column in labels if record[column] is not None}
    wrong = {c: f"{message} in {c}" for c, number in numbers.items() if (message := bad_label(number, labels[c]))}
    names = {c: None if c in wrong else labels[c][number] for c, number in numbers.items()}
    for choices in wanted.values():
        messages = [wrong[column] for column in choices if column in wrong]
        if messages and all((record | names).get(column) is None for column in choices):
            return {BAD: ("bad label", messages[0])}
    return names


def _labels(schema: Any) -> dict[str, Sequence[str]]:
    """Return the class names of each column, as the hub's library stores them in a file."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    return {name: f.names for name, f in features.items() if isinstance(f, datasets.ClassLabel)}


def _tar(file: BinaryIO, start: int, wanted: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Read a WebDataset: adjacent files whose names agree up to the first dot form one record.

    A record's ``.json`` has the fields that none of its other files has.
    """
    wanted_kinds = {choice for choices in wanted.values() for choice in choices} | {METADATA}
    record: dict[str, Any] = {}
    seen = 0
    archive: Any
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # it would keep one for each file
            folder, _, name = member.name.rpartition("/")
            key, dot, kind = name.partition(".")
            if not member.isfile() or not dot or not key:
                continue
            key, kind = f"{folder}/{key}" if folder else key, kind.lower()
            if record.get(KEY) != key:
                if record and seen > start:
                    yield _with_metadata(record, wanted)
                record, seen = {KEY: key}, seen + 1
            if kind in record or member.issparse():
                raise ValueError(f"{member.name} is {'sparse' if member.issparse() else 'in the archive twice'}")
            inside = archive.extractfile(member) if seen > start and kind in wanted_kinds else None
            record[kind] = content = inside.read() if inside else None
            if content is not None and len(content) != member.size:
                raise EOFError(f"{member.name} ends early")
        file.seek(archive.offset)
        end = file.read(RECORD)
        if end[:512] != bytes(512):  # an archive truncated between two files raises no error
            raise EOFError("the archive is truncated: no end-of-archive marker")
        if any(end):
            raise ValueError("another archive follows the end of this one")
    if record and seen > start:
        yield _with_metadata(record, wanted)


def _with_metadata(record: dict[str, Any], wanted: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return a record with the fields of its ``.json`` that none of its other files has."""
    lacking = [choices for choices in wanted.values() if all(record.get(choice) is None for choice in choices)]
    if not lacking or record.get(METADATA) is None:
        return record
    try:
        fields = json.loads(record[METADATA])
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        found = f"its .{METADATA} is not a JSON object {{...}} and no other file is one of {', '.join(lacking[0])}"
        return {**record, BAD: ("bad metadata", found)}
    return {**record, **{name: fields[name] for choices in lacking for name in choices if name in fields}}


READERS: Mapping[str, Callable[..., Iterator[dict[str, Any]]]] = {
    ".parquet": _parquet,
    ".tar": _tar,
    ".tfrecord": tfrecord.read,
}


# --- listing ---------------------------------------------------------------------------------------------------------


def in_folder(path: str | None, wanted: Mapping[str, Sequence[str]], content: str | None, split: str) -> Shards:
    """List the shards of a split in a folder.

    Raises:
        DataError: there is no such folder, it has no shard, or a shard belongs to no known split.
    """
    root = Path(path or "")
    if problem := unusable(root, "shards", LAYOUT):
        raise DataError(str(problem))
    all_files = [f for f in sorted(root.rglob("*")) if f.is_file() and "/." not in f"/{name_in(root, f)}"]
    if packed := [name_in(root, file) for file in all_files if PACKED.search(file.name)]:
        raise DataError(f"dataset.path={root}: found {packed[0]}, expected uncompressed shards; unpack it")
    files = [file for file in all_files if readable(file.name)]
    splits = {file: _split_of(root, file) for file in files}
    unknown = [name_in(root, file) for file, name in splits.items() if name not in SPLITS]
    if unknown or not files:
        listing = ", ".join(unknown[:5]) if unknown else "no such file"
        raise DataError(
            f"dataset.path={root}: found {listing}, expected {LAYOUT}{nearest(listing, [*SPLITS, *ALIASES])}"
        )
    chosen = [file for file in files if splits[file] == split]
    return Shards([Shard(str(file), name_in(root, file), file.stat().st_size) for file in chosen], wanted, content)


def _split_of(root: Path, file: Path) -> str:
    """Return the split of a shard, by its parent folders, else by the first letters of its name."""
    folders = [split_of(folder) for folder in file.relative_to(root).parents]
    match = re.match("[a-z]*", file.name.lower())
    name = match[0] if match else ""
    return next((split for split in folders if split in SPLITS), ALIASES.get(name, name))
