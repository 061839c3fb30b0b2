"""Layouts of published corpora: LibriSpeech, Common Voice, LJSpeech, and the manifests of NeMo."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.data.media.audio import FORMATS
from toolkit.data.problems import Problem, nearest
from toolkit.data.sources.folder import name_in
from toolkit.data.sources.lines import read_lines
from toolkit.datasets.base import recording
from toolkit.datasets.layouts import tables
from toolkit.datasets.layouts.folders import FILE_COLUMNS, METADATA, TEXT_COLUMNS, read_list
from toolkit.datasets.layouts.layout import Items, Layout, Part, Source, split_in
from toolkit.datasets.layouts.records import (
    Lookup,
    Record,
    entries,
    files_below,
    identity_of,
    nfc,
    recordings_in,
    subfolders,
    upwards,
)

AUDIO_FOLDERS = ("clips", "wavs", "wav", "audio")
# Lists of Common Voice beside those of the splits, whose recordings are in a split or were not accepted
UNUSED = {"validated", "invalidated", "other", "reported", "validated_sentences", "unvalidated_sentences"}
UNUSED |= {"clip_durations"}


# --- LibriSpeech -----------------------------------------------------------------------------------------------------


def _librispeech_parts(root: Path) -> Sequence[Part]:
    """List the sets in a folder or in a folder inside, ``LibriSpeech``; else the folder is one set."""
    for base in (root, *subfolders(root)):
        sets = [folder for folder in subfolders(base) if split_in(folder.name) and _transcripts(folder)]
        if sets:
            return [Part(folder.name, split_in(folder.name), folder) for folder in sets]
    return [Part(root.name, "", root)] if _transcripts(root) else []


def _transcripts(folder: Path) -> Path | None:
    """Return a file with transcripts below a folder, if there is one."""
    return next((file for file in files_below(folder) if file.name.endswith(".trans.txt")), None)


def _read_librispeech(source: Source, part: Part) -> Items:
    lists: dict[Path, list[Path]] = {}
    for file in files_below(part.path):
        if file.name.endswith(".trans.txt"):
            lists.setdefault(file.parent, []).append(file)
    for folder, files in sorted(lists.items()):
        audio = recordings_in(folder)
        for file in files:
            yield from _read_chapter(source, part, file, audio)
        names = " or ".join(file.name for file in files)
        for path in audio.values():
            yield Problem("missing transcript", name_in(source.root, path), f"found no line for it in {names}")


def _read_chapter(source: Source, part: Part, file: Path, audio: dict[str, Path]) -> Items:
    """Yield the utterances of a list, and remove their recordings from ``audio``."""
    where = name_in(source.root, file)
    lines = read_lines(file, where)
    if isinstance(lines, Problem):
        yield lines
        return
    for number, line in enumerate(lines, 1):
        name, _, text = line.strip().partition(" ")
        at = f"{where}, line {number}"
        if not name:
            continue
        path = audio.pop(nfc(name), None)
        if path is None:
            hint = nearest(name, audio, 0.9)
            yield Problem("missing file", at, f"found no audio file {name}.* beside it, or a second line{hint}")
        else:
            identity = identity_of(source.root, path)
            yield tables.not_utf8(at, [text]) or recording(identity, part.split or "train", text, path, at)


# --- lists of splits with columns, as of Common Voice ----------------------------------------------------------------


def _table_parts(folder: Path) -> Sequence[Part]:
    parts = []
    for file in entries(folder):
        if file.suffix in (".tsv", ".csv") and os.path.isfile(file):
            names = set() if file.name in METADATA or file.stem in UNUSED else set(tables.columns(file))
            if names & set(FILE_COLUMNS) and names & set(TEXT_COLUMNS):
                parts.append(Part(file.stem, split_in(file.stem), file))
    return parts


def _read_table(source: Source, part: Part) -> Items:
    folder = part.path.parent
    folders = [folder / name for name in AUDIO_FOLDERS if os.path.isdir(folder / name)]
    yield from read_list(source, part.path, part.split, [*folders, folder])


# --- LJSpeech --------------------------------------------------------------------------------------------------------


def _ljspeech_parts(folder: Path) -> Sequence[Part]:
    file = folder / METADATA[0]
    fields = tables.first_line(file).split("|")
    if len(fields) not in (2, 3) or {name.strip().strip('"').lower() for name in fields} & {
        *FILE_COLUMNS,
        *TEXT_COLUMNS,
    }:
        return []
    listed = os.path.exists(folder / "wavs" / _with_suffix(fields[0].strip(), [folder / "wavs"]))
    is_list = listed or tables.delimiter("|".join(fields)) == "|"  # a transcript may have more commas than bars
    return [Part(folder.name, "", file)] if is_list else []


def _read_ljspeech(source: Source, part: Part) -> Items:
    """Yield the utterances of ``id|transcript|normalized transcript``."""
    where, folder = name_in(source.root, part.path), part.path.parent
    lines = read_lines(part.path, where)
    if isinstance(lines, Problem):
        yield lines
        return
    folders = [folder / name for name in ("wavs", "wav") if os.path.isdir(folder / name)]
    lookup = Lookup(source.root, [*folders, folder], "the id")
    thirds = [fields[2].strip() for fields in (line.split("|") for line in lines) if len(fields) == 3]
    named = len(thirds) > 2 and len(set(thirds)) <= len(thirds) / 2  # the third column is a speaker or a style
    for number, line in enumerate(lines, 1):
        fields, at = line.split("|"), f"{where}, line {number}"
        if not line.strip():
            continue
        if len(fields) not in (2, 3):
            yield Problem("bad line", at, f"{len(fields)} fields, expected ID|TRANSCRIPT|NORMALIZED TRANSCRIPT")
            continue
        text = fields[1] if named or not fields[-1].strip() else fields[-1]
        name = _with_suffix(fields[0].strip(), lookup.folders)
        yield tables.not_utf8(at, fields) or lookup.example(Record(at, "train", name, text))


def _with_suffix(name: str, folders: Sequence[Path]) -> str:
    """Return the file name of an id: with the suffix of the file that exists, else of WAV."""
    if Path(name).suffix.lower() in FORMATS:
        return name
    names = [name + suffix for suffix in FORMATS]
    return next((other for other in names for folder in folders if os.path.isfile(folder / other)), names[0])


# --- NeMo ------------------------------------------------------------------------------------------------------------


def _nemo_parts(folder: Path) -> Sequence[Part]:
    files = [file for file in entries(folder) if file.suffix in (".json", ".jsonl", ".ndjson")]
    manifests = [file for file in files if "audio_filepath" in tables.first_object(file)]
    return [Part(file.stem, split_in(file.stem), file) for file in manifests if file.name not in METADATA]


def _read_nemo(source: Source, part: Part) -> Items:
    lookup = Lookup(source.root, upwards(source.root, part.path.parent), "audio_filepath", anywhere=True)
    for row in tables.json_lines(part.path, name_in(source.root, part.path)):
        record = row if isinstance(row, Problem) else _manifest_record(*row, part.split or "train", source.text_column)
        yield record if isinstance(record, Problem) else lookup.example(record)


def _manifest_record(where: str, fields: dict[str, Any], split: str, text_column: str | None) -> Record | Problem:
    column = text_column or next((c for c in ("text", *TEXT_COLUMNS) if c in fields), "text")
    for name in ("audio_filepath", column):
        if not isinstance(fields.get(name), str):
            value = f"{name} is {fields[name]!r:.60}" if name in fields else ", ".join(fields)
            return Problem("wrong type", where, f"found {value}, expected a text in {name}{nearest(name, fields)}")
    times: list[float | None] = []
    for name in ("offset", "duration"):
        time = fields.get(name)
        if time is not None and (type(time) not in (int, float) or not math.isfinite(time) or time < 0):
            return Problem("wrong type", where, f"{name} is {time!r:.60}, expected seconds, 0 or more")
        times.append(time)
    start, seconds = times
    # Without an offset, the duration is that of the file.
    return Record(where, split, fields["audio_filepath"], fields[column], "", start, seconds)


LIBRISPEECH = Layout(
    "LibriSpeech",
    "NAME.trans.txt beside its recordings, in folders such as train-clean-100, dev-clean and test-clean",
    ("{stem} THE WORDS OF THIS RECORDING", "NAME-0002 AND THOSE OF THE NEXT"),
    ("*.trans.txt", "train-*", "dev-*"),
    _librispeech_parts,
    _read_librispeech,
)
TABLES = Layout(
    "Common Voice",
    "train.tsv, dev.tsv and test.tsv, with the recordings beside them or in clips/",
    ("path\tsentence", "{file}\tThe words of this recording."),
    ("*.tsv", "clips"),
    _table_parts,
    _read_table,
)
LJSPEECH = Layout(
    "LJSpeech",
    "metadata.csv with | and without a header, and the recordings in wavs/",
    ("{stem}|The 1st recording.|The first recording.", "NAME-0002|The 2nd.|The second."),
    ("wavs",),
    _ljspeech_parts,
    _read_ljspeech,
)
NEMO = Layout(
    "a manifest of NeMo",
    "train_manifest.json, dev_manifest.json and test_manifest.json of JSON lines",
    (
        '{{"audio_filepath": "{file}", "text": "the words of this recording"}}',
        '{{"audio_filepath": "long.wav", "offset": 1.5, "duration": 2.25, "text": "those of a piece"}}',
    ),
    ("*manifest*", "*.json", "*.jsonl"),
    _nemo_parts,
    _read_nemo,
)
