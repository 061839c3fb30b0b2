"""Repositories on the Hugging Face hub, or local copies of them, through ``datasets``.

Downloading from the hub is untested (the tests read local repositories with the hub's columns).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.data.source import Source
from toolkit.data.sources.shards import Row, Shard, Shards, bad_label, converted, readable
from toolkit.errors import DataError


def examples(dataset: Source, split: str, rows: Iterable[Row | Problem]) -> Iterator[Example | Problem]:
    """Convert the rows of a split, without those to skip."""
    yield from filter(None, converted(dataset, split, rows))


def located(path: str | None, repository: str) -> str:
    """Return the place of a dataset: the local copy at ``path``, else the repository on the hub.

    Raises:
        DataError: nothing is at the path, which the hub's library would look up as the name of a repository.
    """
    if path and not os.path.exists(path):  # which, unlike Path's, never raises
        raise DataError(
            f"dataset.path={path}: found nothing at {Path(path).absolute()}, expected a local copy of {repository}; "
            "leave dataset.path out to fetch it from the hub"
        )
    return path or repository


def rows(
    source: str,
    name: str | None,
    split: str,
    revision: str | None,
    cache: Path,
    columns: Sequence[str],
    content: str = "audio",
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Iterator[Row | Problem]:
    """Yield the rows of one split, with class labels as names, or the problems with them.

    Args:
        source: repository on the hub, or a local folder.
        name: configuration of the repository.
        split: split of the repository.
        revision: branch or commit.
        cache: folder for downloads.
        columns: columns to read besides ``content``.
        content: column of the files.
        labels: column -> class names by number, if those of the hub are missing or spelled differently.

    Raises:
        DataError: it cannot be fetched, or columns are missing.
    """
    import datasets

    data, where = load(source, name, split, revision, cache, (*columns, content))
    names = {c: f.names for c, f in data.features.items() if isinstance(f, datasets.ClassLabel)} | dict(labels)
    table = data.with_format("arrow")  # decoding by the library would need torchcodec
    for start in range(0, len(data), 1000):
        block = table.select_columns(list(columns))[start : start + 1000].to_pylist()
        chunks = table.select_columns([content])[start : start + 1000].column(content).chunks
        # chunk by chunk: combining them would read and copy the files too, 140 GB in ImageNet
        files = [path for chunk in chunks for path in chunk.field("path").to_pylist()]
        bare = [null for chunk in chunks for null in chunk.field("bytes").is_null().to_pylist()]
        absent = [null for chunk in chunks for null in chunk.is_null().to_pylist()]
        for i, (fields, file, no_bytes, null) in enumerate(zip(block, files, bare, absent, strict=True), start):
            origin = f"{where}, row {i}"
            if bad := _bad_fields(fields | {content: None if null or (no_bytes and file is None) else ""}, names):
                yield Problem(bad[0], origin, bad[1])
                continue
            labelled = {c: names[c][v] if c in names else v for c, v in fields.items()}
            # The fingerprint identifies the version of the data in the library's cache.
            stamp = f"{source} {name} {split} {data._fingerprint} {i}"
            file_name = Path(file or "").name
            yield Row(labelled, _reader(table, content, i), file_name, origin, stamp, f"{i:07}")


def _bad_fields(fields: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """Return kind and message of a field that is null, or of a class that has no name."""
    for column, value in fields.items():
        if value is None:
            return "missing field", f"found null in {column}, expected a value"
        if column in names and (message := bad_label(value, names[column])):
            return "bad label", f"{message} in {column}"
    return None


def load(
    source: str, name: str | None, split: str, revision: str | None, cache: Path, columns: Sequence[str]
) -> tuple[Any, str]:
    """Load one split as a ``datasets.Dataset`` with at least these columns; return it and its name in messages.

    Args and errors: see :func:`rows`.
    """
    import datasets

    where = f"{source} {name or ''} {split}".replace("  ", " ")
    with _loading(where):
        data = datasets.load_dataset(source, name, split=split, revision=revision, cache_dir=str(cache / "hub"))
    missing = [column for column in columns if column not in data.column_names]
    if missing:
        names = ", ".join(data.column_names)
        raise DataError(f"{where}: found the columns {names}, expected also {', '.join(missing)}")
    return data, where


@contextlib.contextmanager
def _loading(where: str) -> Iterator[None]:
    try:
        yield
    except (
        Exception
    ) as error:  # the library raises many kinds of errors: no network, no repository, no configuration, no split
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        hint = "check the network and the names, or set dataset.path=FOLDER to a local copy"
        raise DataError(f"{where}: could not be loaded ({reason}); {hint}") from error


def shards(
    source: str,
    name: str | None,
    split: str,
    revision: str | None,
    cache: Path,
    columns: Sequence[str],
    content: str | None = "audio",
) -> Shards:
    """List the files of one split of a repository of Parquet or tar files; only their names are fetched.

    Args and errors: see :func:`rows`.
    """
    import datasets

    where = f"{source} {name or ''} {split}".replace("  ", " ")
    with _loading(where):
        builder = datasets.load_dataset_builder(source, name, revision=revision, cache_dir=str(cache / "hub"))
        files = (builder.config.data_files or {})[split]
    unread = [str(file) for file in files if not readable(str(file))]
    if unread:
        raise DataError(f"{where}: found {unread[0]}, expected Parquet or tar files, which can be read as a stream")
    wanted = {column: (column,) for column in (*columns, *([content] if content else []))}
    urls = [str(file) for file in files]
    names = [Path(url).name for url in urls]
    names = names if len(set(names)) == len(names) else urls  # they must identify a record uniquely
    return Shards([Shard(url, f"{where}, {name}") for url, name in zip(urls, names, strict=True)], wanted, content)


def _reader(table: Any, content: str, i: int) -> Callable[[], bytes]:
    def read() -> bytes:
        file = table[i : i + 1].column(content)[0].as_py()
        return file["bytes"] if file["bytes"] is not None else Path(file["path"]).read_bytes()

    return read
