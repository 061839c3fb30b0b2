"""``dataset=librispeech``, ``common_voice``, ``speech_commands``: corpora on the Hugging Face hub, through
``datasets``.

Downloading from the hub is untested (the tests read local repositories with the hub's columns).
``dataset.path=FOLDER`` takes a local copy of the repository instead.

- LibriSpeech (Panayotov et al. 2015), ``openslr/librispeech_asr``: 960 h of read English, CC BY 4.0.
- Common Voice (Ardila et al. 2020), ``fixie-ai/common_voice_17_0``: read sentences in many languages, CC0.
- Speech Commands (Warden 2018), ``google/speech_commands``: 35 English words, CC BY 4.0.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from toolkit.config.spec import option, spec
from toolkit.data.corpus import Problem
from toolkit.data.speech import Recording, Speech
from toolkit.datasets.shards import Row, Shard, Shards, readable
from toolkit.errors import DataError


@spec
class LibriSpeech(Speech):
    """Read English, 16 kHz FLAC, with the official splits."""

    path: str | None = option(None, "local copy of the repository; none: fetched from the hub")
    repository: str = option("openslr/librispeech_asr", "repository on the hub")
    subset: Literal["clean", "other", "all"] = option("clean", "which part", choices=("clean", "other", "all"))
    train: str = option("train.100", "the hub's split to train on: train.100, train.360 (clean), train.500 (other)")
    validation: str = option("validation", "the hub's split to validate on")
    test: str = option("test", "the hub's split to test on")

    def recordings(self, cache: Path, progress: Any) -> Iterator[Recording | Problem]:
        for split in self.kept:
            for row in rows(*self._part(split), cache, ("id", "text")):
                yield self.example(split, row)

    def shards(self, split: str, cache: Path) -> Shards:
        return shards(*self._part(split), cache, ("id", "text"))

    def example(self, split: str, row: Row) -> Recording:
        name, text = row.fields["id"], row.fields["text"].lower()
        return Recording(name, split, text, row.read, row.where, row.file_name, row.stamp)

    def _part(self, split: str) -> tuple[str, str, str, None]:
        part = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        return self.path or self.repository, self.subset, part, None


@spec
class CommonVoice(Speech):
    """Read sentences of many speakers, MP3, with the official splits."""

    path: str | None = option(None, "local copy of the repository; none: fetched from the hub")
    repository: str = option("fixie-ai/common_voice_17_0", "repository on the hub")
    language: str = option("en", "language code, such as de or pt")
    plain: bool = option(True, "lower-case transcripts with letters, digits, apostrophe and blank only")

    def recordings(self, cache: Path, progress: Any) -> Iterator[Recording | Problem]:
        for split in self.kept:
            for row in rows(*self._part(split), cache, ("path", "sentence")):
                yield self.example(split, row)

    def shards(self, split: str, cache: Path) -> Shards:
        return shards(*self._part(split), cache, ("path", "sentence"))

    def example(self, split: str, row: Row) -> Recording:
        text = plain_text(row.fields["sentence"]) if self.plain else row.fields["sentence"]
        name = Path(row.fields["path"]).stem
        return Recording(name, split, text, row.read, row.where, row.file_name, row.stamp)

    def _part(self, split: str) -> tuple[str, str, str, None]:
        return self.path or self.repository, self.language, split, None


@spec
class SpeechCommands(Speech):
    """Isolated English words of many speakers, 1 s each, with the official splits; background noise is left out."""

    path: str | None = option(None, "local copy of the repository; none: fetched from the hub")
    repository: str = option("google/speech_commands", "repository on the hub")
    revision: str | None = option("refs/convert/parquet", "revision on the hub; not used with a path")
    version: str = option("v0.02", "version of the corpus: v0.01 (30 words) or v0.02 (35)")

    def recordings(self, cache: Path, progress: Any) -> Iterator[Recording | Problem]:
        for split in self.kept:
            for row in rows(*self._part(split), cache, ("file", "label")):
                if example := self.example(split, row):
                    yield example

    def shards(self, split: str, cache: Path) -> Shards:
        return shards(*self._part(split), cache, ("file", "label"))

    def example(self, split: str, row: Row) -> Recording | None:
        text, name = row.fields["label"], row.fields["file"].removesuffix(".wav")
        if text == "_silence_":
            return None
        return Recording(name, split, text, row.read, row.where, row.file_name, row.stamp)

    def _part(self, split: str) -> tuple[str, str, str, str | None]:
        return self.path or self.repository, self.version, split, None if self.path else self.revision


def rows(
    source: str,
    name: str | None,
    split: str,
    revision: str | None,
    cache: Path,
    columns: Sequence[str],
    content: str = "audio",
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Iterator[Row]:
    """The rows of one split; class labels as their names.

    Args:
        source: repository on the hub, or a local folder.
        name: its configuration.
        split: its split.
        revision: branch or commit.
        cache: where downloads are kept.
        columns: those to read, besides ``content``.
        content: the column of the files.
        labels: column -> names of its numbers, where the hub's own are missing or spelt otherwise.

    Raises:
        DataError: it cannot be fetched, or columns are missing.
    """
    import datasets

    data, where = load(source, name, split, revision, cache, (*columns, content))
    names = {c: f.names for c, f in data.features.items() if isinstance(f, datasets.ClassLabel)} | dict(labels)
    table = data.with_format("arrow")  # the library's own decoding would need torchcodec
    for start in range(0, len(data), 1000):
        block = table.select_columns(list(columns))[start : start + 1000].to_pylist()
        chunks = table.select_columns([content])[start : start + 1000].column(content).chunks
        # chunk by chunk: to combine them would read and copy the files too, 140 GB in ImageNet
        files = [path for chunk in chunks for path in chunk.field("path").to_pylist()]
        for i, (fields, file) in enumerate(zip(block, files, strict=True), start):
            labelled = {c: names[c][v] if c in names else v for c, v in fields.items()}
            # The fingerprint names the version of the data that the library has cached.
            stamp = f"{source} {name} {split} {data._fingerprint} {i}"
            file_name = Path(file or "").name
            yield Row(labelled, _reader(table, content, i), file_name, f"{where}, row {i}", stamp, f"{i:07}")


def load(
    source: str, name: str | None, split: str, revision: str | None, cache: Path, columns: Sequence[str]
) -> tuple[Any, str]:
    """One split as a ``datasets.Dataset`` with at least these columns, and what to call it in a message.

    Args and errors: see :func:`rows`.
    """
    import datasets

    where = f"{source} {name or ''} {split}".replace("  ", " ")
    with _loading(where):
        data = datasets.load_dataset(source, name, split=split, revision=revision, cache_dir=str(cache / "hub"))
    missing = [column for column in columns if column not in data.column_names]
    if missing:
        found = ", ".join(data.column_names)
        raise DataError(f"{where}: found the columns {found}, expected also {', '.join(missing)}")
    return data, where


@contextlib.contextmanager
def _loading(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the library raises many kinds: no network, no repository, no configuration, no split
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        hint = "check the network and the names, or give a local copy with dataset.path=FOLDER"
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
    """The files of one split, where the repository has them as Parquet or tar: nothing is fetched but their names.

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
    names = names if len(set(names)) == len(names) else urls  # by which a record is told from all others
    return Shards([Shard(url, f"{where}, {name}") for url, name in zip(urls, names, strict=True)], wanted, content)


def plain_text(text: str) -> str:
    """Lower case, typographic apostrophes as ``'``, everything but letters, marks, digits and apostrophes to a
    blank."""
    text = unicodedata.normalize("NFC", text).lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    kept = [c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text]
    return re.sub(r" +", " ", "".join(kept)).strip()


def _reader(table: Any, content: str, i: int) -> Callable[[], bytes]:
    def read() -> bytes:
        file = table[i : i + 1].column(content)[0].as_py()
        return file["bytes"] if file["bytes"] is not None else Path(file["path"]).read_bytes()

    return read
