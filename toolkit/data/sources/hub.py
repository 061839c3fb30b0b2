"""Repositories on the Hugging Face hub, or local copies of them, through ``datasets``.

The tests run ``datasets`` and ``huggingface_hub`` against a stand-in of the hub's HTTP interface, with repositories in
the layout of the real ones; the hub itself is untested.

Only the files of the split that is read are fetched. A hub that cannot be reached counts as ``HF_HUB_OFFLINE=1``: what
the cache holds is used, without waiting for the library's retries.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from toolkit.data.example import Example
from toolkit.data.problems import Problem, nearest
from toolkit.data.source import Source
from toolkit.data.sources.shards import Row, Shard, Shards, bad_label, converted, readable, short
from toolkit.errors import UNWRITABLE, DataError, disk_error, listed

EXPORT = "refs/convert/parquet"  # branch to which the hub exports a dataset: CONFIGURATION/SPLIT/0000.parquet
TIMEOUT = 10  # of the first request to the hub, in seconds
UNKNOWN_NAME = re.compile(r"BuilderConfig '.*' not found. Available: (\[.*\])")


def examples(dataset: Source, split: str, rows: Iterable[Row | Problem]) -> Iterator[Example | Problem]:
    """Convert the rows of a split, without those to skip."""
    yield from filter(None, converted(dataset, split, rows))


def located(path: str | None, repository: str, revision: str | None) -> tuple[str, str | None]:
    """Return the place of a dataset and its revision: the local copy at ``path``, else the repository on the hub.

    Raises:
        DataError: nothing is at the path, which the hub's library would look up as the name of a repository.
    """
    if not path:
        return repository, revision
    if not os.path.exists(path):
        raise DataError(
            f"dataset.path={path}: found nothing at {Path(path).absolute()}, expected a local copy of {repository}; "
            "leave dataset.path out to fetch it from the hub"
        )
    return path, None


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
    where = _where(source, name, split)
    with _loading(source, name, where, revision):
        builder = _builder(source, name, split, revision, cache, where)
        builder.download_and_prepare()
        data = builder.as_dataset(split=split)
    missing = [column for column in columns if column not in data.column_names]
    if missing:
        names = ", ".join(data.column_names)
        raise DataError(f"{where}: found the columns {names}, expected also {', '.join(missing)}")
    return data, where


def _where(source: str, name: str | None, split: str) -> str:
    return " ".join(filter(None, (source, name, split)))


def _builder(source: str, name: str | None, split: str, revision: str | None, cache: Path, where: str) -> Any:
    """Return the library's builder of a configuration, which fetches only the files of one split.

    The cache has a folder for each revision, configuration and split: where one of them fails to load, the library
    would take another one.

    Raises:
        DataError: there is no such split.
    """
    import datasets

    exported = _exported(source, name, revision)
    place = cache.joinpath("hub", *(urllib.parse.quote(key or "main", safe="") for key in (revision, name, split)))
    arguments: dict[str, Any] = {"name": name}
    if exported:  # no card declares the configurations
        arguments = {"name": f"{name or 'default'}-exported"}
    if exported and not datasets.config.HF_HUB_OFFLINE:
        files = {split: f"{name or 'default'}/{split}/*.parquet"}
        arguments = {"data_files": files, "config_id": arguments["name"]}
    builder = datasets.load_dataset_builder(source, revision=revision, cache_dir=str(place), **arguments)
    if "config_id" in arguments:
        builder.info.config_name = arguments["config_id"]  # by which it is found when the library is offline
    splits = list(builder.config.data_files or builder.info.splits or {})
    if split not in splits:
        raise DataError(f"{where}: found no such split, expected one of {listed(splits)}{nearest(split, splits)}")
    if builder.config.data_files and not Path(builder.cache_dir).exists():
        builder.config.data_files = {split: builder.config.data_files[split]}
        # the card's numbers are those of all splits
        builder.info.splits = builder.info.download_size = builder.info.dataset_size = builder.info.size_in_bytes = None
    return builder


def _exported(source: str, name: str | None, revision: str | None) -> bool:
    """Return True for the hub's export of a repository, or a local copy of it."""
    folder = Path(source)
    if folder.is_dir():
        return (folder / (name or "default")).is_dir() and not (folder / "README.md").is_file()
    return revision == EXPORT


@contextlib.contextmanager
def _loading(source: str, name: str | None, where: str, revision: str | None) -> Iterator[None]:
    """Turn an error of the library into one message.

    Raises:
        DataError: what stands in the way, and what to do.
        RunError: the disk is full or not writable.
    """
    obstacle = "" if Path(source).is_dir() else _obstacle(source)
    try:
        with _offline() if obstacle else contextlib.nullcontext():
            yield
    except DataError:
        raise
    except Exception as error:  # the library raises many kinds of errors
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise disk_error(error, source) from error
        reason = f"not in the cache, and {obstacle}" if obstacle else _reason(error, source, name, revision)
        raise DataError(f"{where}: {reason}, or set dataset.path=FOLDER to a local copy") from error


def _obstacle(source: str) -> str:
    """Return what keeps this process from the repository; empty if nothing is known to."""
    reason = ""
    for seconds in (1, 2, 0):
        reason, passes = _refusal(source)
        if not passes:
            break
        time.sleep(seconds)
    return reason


def _refusal(source: str) -> tuple[str, bool]:
    """Ask the hub for access to a repository; return why there is none, if so, and whether that may pass."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    address = f"{constants.ENDPOINT}/api/datasets/{source}/auth-check"  # HfApi.auth_check has no timeout
    page, login = f"{constants.ENDPOINT}/datasets/{source}", "log in by `hf auth login` or set HF_TOKEN"
    try:
        hf_raise_for_status(get_session().get(address, headers=build_hf_headers(), timeout=TIMEOUT))
    except GatedRepoError as error:
        if error.response.status_code == 401:
            return f"access to it needs a login; accept the terms at {page}, and {login}", False
        return f"access is not granted to this account; accept the terms at {page}", False
    except RepositoryNotFoundError:
        return f"found no such repository on the hub; check the name and, if it is private, {login}", False
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code == 401:
            return f"the hub refuses the token found here; {login}, with a valid one", False
        return f"{constants.ENDPOINT} answers with error {code}; try again later" if code >= 500 else "", code >= 500
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set; unset it once", False
    except Exception as error:  # those of the HTTP library
        reason = f"{constants.ENDPOINT} cannot be reached ({short(error)}); check the network"
        return reason, "Timeout" not in type(error).__name__
    return "", False


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let the libraries use their caches only; otherwise they try for 23 s to reach the hub, for each split."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _reason(error: Exception, source: str, name: str | None, revision: str | None) -> str:
    """Return why a repository that can be reached could not be loaded, and what to do."""
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    if match := UNKNOWN_NAME.match(str(error)):
        names = ast.literal_eval(match[1])
        return f"found no configuration {name}, expected one of {listed(names)}{nearest(str(name), names)}"
    if isinstance(error, DatasetNotFoundError) and revision:
        return f"found no revision {revision}, expected a branch, a tag or a commit in dataset.revision"
    if isinstance(error, DataFilesNotFoundError | EmptyDatasetError):
        where = f"{name or 'default'} at {revision or 'the main branch'}"
        return f"found no data files of the configuration {where}; check the names"
    if "scripts are no longer supported" in str(error):
        return f"found a loading script, which is not run; set dataset.revision={EXPORT}, the hub's export to Parquet"
    failure = str(error).rpartition("Hub either: ")[2].partition(". ")[0] if "Hub either: " in str(error) else ""
    return f"could not be loaded ({failure or short(error)}); check the network and the names"


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
    where = _where(source, name, split)
    with _loading(source, name, where, revision):
        builder = _builder(source, name, split, revision, cache, where)
    if not builder.config.data_files:
        raise DataError(
            f"{where}: a stream is read from the hub, which is not available now; connect to it, or set "
            "dataset.streaming=false to use what is in the cache"
        )
    files = builder.config.data_files[split]
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
