"""Data sets in many files: Parquet, WebDataset (tar) or TFRecord shards, in a folder or on the Hugging Face hub.

A shard is read from front to back, or from any record on, so that a training can go over more data than fit into the
memory or on the disk (``toolkit/data/stream.py``). Neither framework is needed for it.

In a folder, the files of a split are in a folder of its name, or begin with it: ``train/0000.tar``,
``train-00000-of-00010.parquet``, ``val-3.tfrecord``.
"""

from __future__ import annotations

import functools
import re
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from toolkit.data import cache as array_cache
from toolkit.data.example import SPLITS, Example
from toolkit.data.problems import Problem, nearest
from toolkit.data.source import Source
from toolkit.data.sources.folder import ALIASES, name_in, split_of, unusable
from toolkit.errors import DataError

RECORD = 10_240  # bytes that a tar is filled up to, by zeros behind its end
BLOCK = 64  # records of Parquet that are decoded at a time
LAYOUT = "train-*.parquet (or .tar, .tfrecord), validation-* and test-*, or a folder of each split"
PACKED = re.compile(r"\.tgz$|\.(tar|parquet|tfrecords?)(-\d+-of-\d+)?\.(gz|bz2|xz|zst)$")
KEY = "__key__"  # of a WebDataset record: the name that its files share


@dataclass(frozen=True)
class Row:
    """One record, its file (a recording or a picture) not read yet.

    Args:
        fields: what else it has.
        read: returns the file.
        file_name: its name; the suffix tells the format.
        where: what a user calls the record.
        stamp: changes whenever the file changes.
        number: unique in the split: "00003-000017".
    """

    fields: Mapping[str, Any]
    read: Callable[[], bytes]
    file_name: str
    where: str
    stamp: str
    number: str = ""


@dataclass(frozen=True)
class Shard:
    """One file: its path or URL, what to call it, and its size in bytes where that is known."""

    url: str
    where: str
    size: int | None = None


@dataclass(frozen=True)
class Shards:
    """The files of a split.

    Args:
        files: in their order.
        wanted: field -> the names that it may have in the files, the first that is there counts.
        content: the one of them that holds a file.
    """

    files: Sequence[Shard]
    wanted: Mapping[str, Sequence[str]]
    content: str | None = None

    def examples(self, dataset: Source, split: str, number: int, start: int = 0) -> Iterator[Example | Problem | None]:
        """What a dataset makes of the records of a shard, from one on: an example, a problem, or None to pass it over.

        Raises:
            DataError: the shard cannot be read, or its columns lack a field.
        """
        for row in self.rows(number, start):
            yield row if isinstance(row, Problem) else dataset.example(split, row)

    def rows(self, number: int, start: int = 0) -> Iterator[Row | Problem]:
        """The records of a shard, from one on, and what is wrong with some of them.

        Raises:
            DataError: the shard cannot be read, or its columns lack a field.
        """
        shard, i = self.files[number], start
        local = "://" not in shard.url
        identity = array_cache.file_identity(Path(shard.url)) if local else shard.url
        try:
            with _opened(shard.url) as file:
                for record in READERS[_suffix(shard.url)](file, start, self.wanted):
                    key = f" ({record[KEY]})" if KEY in record and not self.content else ""  # else the file has a name
                    where = f"{shard.where}, record {i}{key}"
                    yield self._row(record, where, f"{identity} {i}", f"{number:05}-{i:07}")
                    i += 1
        except _Lacking as error:
            raise DataError(f"{shard.where}: {error}") from error
        except Exception as error:  # of the file's library, or of the network
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
            message = f"cannot be read ({reason}); copy the file again, or take it away"
            raise DataError(f"{shard.where}, record {i}: {message}") from error

    def _row(self, record: Mapping[str, Any], where: str, stamp: str, number: str) -> Row | Problem:
        fields = {}
        content, file_name = b"", ""
        for name, choices in self.wanted.items():
            found = next((choice for choice in choices if record.get(choice) is not None), None)
            if found is None:
                return Problem("missing field", where, _lacking(name, choices, record))
            value = record[found]
            if name != self.content:
                fields[name] = value.decode("utf-8", "surrogateescape").strip() if isinstance(value, bytes) else value
                continue
            inside, file_name = _file(value, found, record)
            if not isinstance(inside, bytes):
                return Problem(
                    "wrong type", where, f"found {str(value)[:60]!r} as the {name}, expected the file itself"
                )
            content = inside
        return Row(fields, lambda: content, file_name, where, stamp, number)


def _lacking(name: str, choices: Sequence[str], found: Iterable[str]) -> str:
    has = ", ".join(key for key in found if key != KEY) or "nothing"
    return f"found {has}, expected one of {', '.join(choices)} for the {name}"


class _Lacking(Exception):
    """All records of a file lack a field."""


def _file(value: Any, found: str, record: Mapping[str, Any]) -> tuple[Any, str]:
    """What is in a file, and its name: Parquet of the hub has both in one field, a tar names it by the field."""
    if isinstance(value, Mapping):
        return value.get("bytes"), PurePosixPath(value.get("path") or "").name
    return value, f"{record[KEY]}.{found}" if KEY in record else ""


def _suffix(url: str) -> str:
    name = PurePosixPath(url).name
    return ".tfrecord" if re.search(r"\.tfrecords?(-\d+-of-\d+)?$", name) else PurePosixPath(name).suffix


def readable(url: str) -> bool:
    """Whether it is a file of a kind that is read here."""
    return _suffix(url) in READERS


def _opened(url: str) -> Any:
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
                        yield record | {
                            k: names[record[k]] for k, names in labels.items() if record[k] in range(len(names))
                        }
                    start = max(0, start - len(batch))
            else:
                start -= rows
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _labels(schema: Any) -> dict[str, Sequence[str]]:
    """Names of the classes by column, as the hub's library leaves them in a file."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    return {name: f.names for name, f in features.items() if isinstance(f, datasets.ClassLabel)}


def _tar(file: BinaryIO, start: int, wanted: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """WebDataset: files that follow each other and share a name up to its first dot are one record."""
    known = {choice for choices in wanted.values() for choice in choices}
    record: dict[str, Any] = {}
    seen = 0
    archive: Any
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # it keeps one for each file that it has passed
            folder, _, name = member.name.rpartition("/")
            key, dot, kind = name.partition(".")
            if not member.isfile() or not dot or not key:
                continue
            key, kind = f"{folder}/{key}" if folder else key, kind.lower()
            if record.get(KEY) != key:
                if record and seen > start:
                    yield record
                record, seen = {KEY: key}, seen + 1
            if kind in record or member.issparse():
                raise ValueError(f"{member.name} is {'sparse' if member.issparse() else 'there twice'}")
            inside = archive.extractfile(member) if seen > start and kind in known else None
            record[kind] = content = inside.read() if inside else None
            if content is not None and len(content) != member.size:
                raise EOFError(f"{member.name} ends early")
        file.seek(archive.offset)
        end = file.read(RECORD)
        if end[:512] != bytes(512):  # an archive that is cut between two of its files ends without a word
            raise EOFError("the archive has no end")
        if any(end):
            raise ValueError("another archive follows behind its end")
    if record and seen > start:
        yield record


def _tfrecord(file: BinaryIO, start: int, wanted: Any) -> Iterator[dict[str, Any]]:
    """Records of ``tf.train.Example``: length, its checksum, the message, its checksum."""
    from tensorboardX.crc32c import crc32c

    for i, header in enumerate(iter(lambda: file.read(12), b"")):
        if not i and header[:2] == b"\x1f\x8b":
            raise ValueError("it is compressed by gzip, unpack it")
        length, checksum = struct.unpack("<QI", header)
        value = crc32c(header[:8])
        if checksum != (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF:
            raise ValueError("the checksum of its length differs")
        if i < start:
            file.seek(length + 4, 1)
            continue
        message = file.read(length)
        if len(message) < length or len(file.read(4)) < 4:
            raise EOFError("the file ends early")
        yield _example(message)


def _example(message: bytes) -> dict[str, Any]:
    from google.protobuf.message import DecodeError

    found = _example_class()()
    try:
        found.ParseFromString(message)
    except DecodeError as error:
        raise ValueError("no tf.train.Example") from error
    values = {}
    for name, feature in found.features.feature.items():
        kind = feature.WhichOneof("kind")
        listed = list(getattr(feature, kind).value) if kind else []
        if len(listed) == 1:
            values[name] = listed[0]
        elif listed:
            values[name] = listed
    return values


@functools.cache
def _example_class() -> Any:
    """The message ``tf.train.Example``, described here, so that reading it takes no TensorFlow."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="toolkit/example.proto", package="toolkit", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, str], parent: Any = file.message_type) -> Any:
        made = parent.add(name=name)
        for key, number, kind, of in fields:
            label = kinds.LABEL_REPEATED if key in ("value", "feature") else kinds.LABEL_OPTIONAL
            label = kinds.LABEL_OPTIONAL if of == ".toolkit.Feature" else label
            made.field.add(name=key, number=number, type=kind, label=label, type_name=of or None)
        return made

    lists = (("BytesList", kinds.TYPE_BYTES), ("FloatList", kinds.TYPE_FLOAT), ("Int64List", kinds.TYPE_INT64))
    for name, kind in lists:
        message(name, ("value", 1, kind, ""))
    parts = [(name.lower(), i, kinds.TYPE_MESSAGE, f".toolkit.{name}") for i, (name, _) in enumerate(lists, 1)]
    feature = message("Feature", *parts)
    feature.oneof_decl.add(name="kind")
    for part in feature.field:
        part.oneof_index = 0
    every = message("Features", ("feature", 1, kinds.TYPE_MESSAGE, ".toolkit.Features.FeatureEntry"))
    entry = (("key", 1, kinds.TYPE_STRING, ""), ("value", 2, kinds.TYPE_MESSAGE, ".toolkit.Feature"))
    message("FeatureEntry", *entry, parent=every.nested_type).options.map_entry = True
    message("Example", ("features", 1, kinds.TYPE_MESSAGE, ".toolkit.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("toolkit.Example"))


READERS: Mapping[str, Callable[..., Iterator[dict[str, Any]]]] = {
    ".parquet": _parquet,
    ".tar": _tar,
    ".tfrecord": _tfrecord,
}


# --- where they are --------------------------------------------------------------------------------------------------


def in_folder(path: str | None, wanted: Mapping[str, Sequence[str]], content: str | None, split: str) -> Shards:
    """The shards of a split in a folder.

    Raises:
        DataError: there is no such folder, or no shard in it whose split is known.
    """
    root = Path(path or "").expanduser()
    if problem := unusable(root, "shards", LAYOUT):
        raise DataError(str(problem))
    there = [file for file in sorted(root.rglob("*")) if file.is_file()]
    if packed := [name_in(root, file) for file in there if PACKED.search(file.name)]:
        raise DataError(f"dataset.path={root}: found {packed[0]}, expected shards that are not compressed: unpack it")
    files = [file for file in there if readable(file.name)]
    of = {file: _split_of(root, file) for file in files}
    unknown = [name_in(root, file) for file, found in of.items() if found not in SPLITS]
    if unknown or not files:
        found = ", ".join(unknown[:5]) if unknown else "no such file"
        raise DataError(f"dataset.path={root}: found {found}, expected {LAYOUT}{nearest(found, [*SPLITS, *ALIASES])}")
    chosen = [file for file in files if of[file] == split]
    return Shards([Shard(str(file), name_in(root, file), file.stat().st_size) for file in chosen], wanted, content)


def _split_of(root: Path, file: Path) -> str:
    """By the folders that it is in, else by how its name begins."""
    folders = [split_of(folder) for folder in file.relative_to(root).parents]
    begin = re.match("[a-z]*", file.name.lower())
    name = begin[0] if begin else ""
    return next((found for found in folders if found in SPLITS), ALIASES.get(name, name))
