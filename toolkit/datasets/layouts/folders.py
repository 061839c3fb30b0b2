"""Layouts of ``audiofolder``: metadata beside the recordings, or a text beside each of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.data.example import SPLITS, Example
from toolkit.data.media.audio import FORMATS
from toolkit.data.problems import Problem, bad_name, nearest
from toolkit.data.sources.folder import ALIASES, is_beside, name_in, split_of
from toolkit.datasets.base import recording
from toolkit.datasets.layouts import tables
from toolkit.datasets.layouts.layout import Items, Layout, Part, Source
from toolkit.datasets.layouts.records import Lookup, Record, files_below, identity_of, nfc, subfolders

FILE_COLUMNS = ("file_name", "path", "audio_filepath", "wav_filename", "audio_file")
TEXT_COLUMNS = ("transcription", "text", "sentence", "transcript")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.tsv")


# --- metadata --------------------------------------------------------------------------------------------------------


def metadata_in(folder: Path) -> list[Path]:
    """List the files with metadata in a folder."""
    return [folder / name for name in METADATA if os.path.exists(folder / name)]


def record_of(where: str, fields: dict[str, Any], split: str, text_column: str | None) -> Record | Problem:
    """Convert a row of a list with columns.

    Args:
        where: the row's place.
        fields: by column.
        split: of the list; empty: the column ``split`` says, or else it is for training.
        text_column: of the transcript; None: the first of TEXT_COLUMNS.
    """
    file_column = next((c for c in FILE_COLUMNS if c in fields), FILE_COLUMNS[0])
    column = text_column or next((c for c in TEXT_COLUMNS if c in fields), TEXT_COLUMNS[0])
    for name in (file_column, column):
        if name not in fields:
            message = f"found {', '.join(fields)}; expected {name!r} too{nearest(name, fields)}"
            return Problem("missing column", where, message)
        if not isinstance(fields[name], str):
            found = f"{fields[name]!r} ({type(fields[name]).__name__})"
            return Problem("wrong type", where, f"{name} is {found}, expected text")
    split_column = str(fields.get("split") or "").strip().lower()
    split_column = ALIASES.get(split_column, split_column)
    if split and split_column and split_column != split:
        message = f"the column split says {split_column!r}, but the folder is {split!r}"
        return Problem("contradicting split", where, message)
    identity = str(fields.get("id") or "")
    return Record(where, split or split_column or "train", fields[file_column], fields[column], identity)


def read_list(source: Source, file: Path, split: str, folders: Sequence[Path]) -> Items:
    """Yield the examples of a list with columns: delimited, or JSON lines.

    Args:
        source: the dataset's folder.
        file: the list.
        split: of the list; empty: see :func:`record_of`.
        folders: with the recordings.
    """
    where = name_in(source.root, file)
    is_json = file.suffix == ".jsonl"
    expected = f"{FILE_COLUMNS[0]} and {TEXT_COLUMNS[0]}"
    rows = tables.json_lines(file, where) if is_json else tables.delimited(file, where, expected)
    lookup = Lookup(source.root, folders)
    for row in rows:
        record = row if isinstance(row, Problem) else record_of(*row, split, source.text_column)
        if isinstance(record, Problem) and record.kind == "missing column" and not is_json:
            # All records share the header, so one problem is enough.
            yield dataclasses.replace(record, where=f"{where}, line 1", fatal=True)
            return
        yield record if isinstance(record, Problem) else lookup.example(record)


def _metadata_parts(folder: Path) -> Sequence[Part]:
    return [Part(folder.name, "", folder)] if metadata_in(folder) else []


def _read_metadata(source: Source, part: Part) -> Items:
    files = metadata_in(part.path)
    if len(files) > 1:
        message = f"found both {' and '.join(file.name for file in files)}, expected one of them"
        yield Problem("ambiguous metadata", name_in(source.root, part.path), message, fatal=True)
        return
    yield from read_list(source, files[0], part.split, [part.path])


# --- a text beside each recording ------------------------------------------------------------------------------------


def _pair_parts(folder: Path) -> Sequence[Part]:
    """Return the folder as a set if a recording has a text beside it."""
    texts: set[str] = set()
    audio: set[str] = set()
    for file in files_below(folder):
        suffix, stem = file.suffix.lower(), nfc(os.fspath(file.with_suffix("")))
        if suffix == ".txt":
            texts.add(stem)
        elif suffix in FORMATS:
            audio.add(stem)
        if stem in texts and stem in audio:
            return [Part(folder.name, "", folder)]
    return []


def _read_pairs(source: Source, part: Part) -> Items:
    root, split = source.root, part.split or "train"
    files = sorted(files_below(part.path))
    audio = [path for path in files if path.suffix.lower() in FORMATS]
    texts = {nfc(os.fspath(path.with_suffix(""))): path for path in files if path.suffix.lower() == ".txt"}
    used: set[str] = set()
    for path in audio:
        where = name_in(root, path)
        used.add(stem := nfc(os.fspath(path.with_suffix(""))))
        kind, message = bad_name(where)
        text = texts.get(stem)
        if kind:
            yield Problem(kind, ascii(where), message)
        elif not os.path.exists(path):
            yield Problem("missing file", where, f"it is a link to {os.readlink(path)!r}, which does not exist")
        elif text is None:
            yield Problem("missing transcript", where, f"found no {path.stem}.txt beside it")
        else:
            yield _pair(source, split, path, text)
    for stem, text in sorted(texts.items()):
        if stem not in used and not is_beside(text.name):
            where = name_in(root, text)
            yield Problem("missing file", where, f"found no audio file {Path(stem).name}.* beside it")


def _pair(source: Source, split: str, path: Path, file: Path) -> Example | Problem:
    where = name_in(source.root, path)
    try:
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        return Problem("unreadable file", name_in(source.root, file), f"{error.strerror}, expected a readable file")
    problem = tables.not_utf8(name_in(source.root, file), [text])
    return problem or recording(identity_of(source.root, path), split, text, path, where)


# --- folders of splits -----------------------------------------------------------------------------------------------


def split_folders(root: Path) -> list[tuple[str, Path]]:
    """List ``(split, folder)`` of the subfolders named like a split, in the order of SPLITS."""
    named = [(split_of(folder), folder) for folder in subfolders(root)]
    return sorted(((s, p) for s, p in named if s in SPLITS), key=lambda item: SPLITS.index(item[0]))


def _split_parts(root: Path) -> Sequence[Part]:
    """List the folders of splits, and those beside them that have metadata too: probably a misspelled split."""
    named = split_folders(root)
    if not any(metadata_in(folder) or _pair_parts(folder) for _, folder in named):
        return []
    folders = [folder for _, folder in named]
    strays = [folder for folder in subfolders(root) if folder not in folders and metadata_in(folder)]
    return [*(Part(folder.name, split, folder) for split, folder in named), *(Part(f.name, "", f) for f in strays)]


def _read_split(source: Source, part: Part) -> Items:
    if metadata_in(part.path):
        yield from _read_metadata(source, part)
    elif _pair_parts(part.path):
        yield from _read_pairs(source, part)
    else:
        listing = ", ".join(path.name for path in list(files_below(part.path))[:5]) or "no file"
        yield Problem(
            "no transcripts", name_in(source.root, part.path), f"found {listing}; expected {SKETCH}", fatal=True
        )


SKETCH = "metadata.csv (file_name, transcription) beside the audio files, or NAME.wav + NAME.txt"
LINES = ("file_name,transcription", "{file},the words of this recording")
METADATA_LAYOUT = Layout("metadata", SKETCH, LINES, ("*.csv",), _metadata_parts, _read_metadata)
SPLITS_LAYOUT = Layout("folders of splits", f"in each, {SKETCH}", LINES, (), _split_parts, _read_split)
PAIRS_LAYOUT = Layout("pairs", SKETCH, LINES, (), _pair_parts, _read_pairs)
