"""Data folders of Kaldi: ``wav.scp``, ``text`` and optionally ``segments``.

A command in ``wav.scp`` is never run.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit.data.problems import Problem
from toolkit.data.sources.folder import name_in
from toolkit.data.sources.lines import read_lines
from toolkit.datasets.layouts import tables
from toolkit.datasets.layouts.layout import Items, Layout, Part, Source, split_in
from toolkit.datasets.layouts.records import Lookup, Record, subfolders, upwards

Entry = tuple[str, str]  # place of the line, what follows the key
Piece = tuple[str, float | None, float | None]  # recording, start and length in seconds


def _parts(root: Path) -> Sequence[Part]:
    """List a folder with ``wav.scp`` and ``text``, or those in it."""
    if _is_set(root):
        return [Part(root.name, "", root)]
    return [Part(folder.name, split_in(folder.name), folder) for folder in subfolders(root) if _is_set(folder)]


def _is_set(folder: Path) -> bool:
    return all(os.path.isfile(folder / name) for name in ("wav.scp", "text"))


def _read(source: Source, part: Part) -> Items:
    entries: dict[str, dict[str, Entry]] = {}
    for name in ("wav.scp", "text", "segments"):
        entries[name] = {}
        if name != "segments" or os.path.isfile(part.path / name):
            yield from _fill(entries[name], source.root, part.path / name)
    recordings, texts = entries["wav.scp"], entries["text"]
    pieces: dict[str, Piece] = {name: (name, None, None) for name in recordings}
    if entries["segments"]:
        pieces = {}
        yield from _fill_pieces(pieces, entries["segments"])
    lookup = Lookup(source.root, upwards(source.root, part.path), "the file", anywhere=True)
    prefix = "" if part.path == source.root else f"{part.name}/"
    for name, (where, text) in texts.items():
        recording, start, seconds = pieces.get(name, ("", None, None))
        if recording not in recordings:
            listed = "segments" if entries["segments"] else "wav.scp"
            missing = f"its recording {recording!r} in wav.scp" if recording else f"{name!r} in {listed}"
            yield Problem("missing file", where, f"found no {missing}, expected a line for it")
            continue
        at, file = recordings[recording]
        record = Record(where, part.split or "train", file, text, prefix + name, start, seconds)
        yield _command(at, file) or lookup.example(record)
    for name in pieces:
        if name not in texts:
            where = name_in(source.root, part.path / "text")
            yield Problem("missing transcript", where, f"found no line for {name!r}, expected its transcript")


def _fill(entries: dict[str, Entry], root: Path, file: Path) -> Iterator[Problem]:
    """Read lines ``KEY REST``; yield the problems with them."""
    where = name_in(root, file)
    lines = read_lines(file, where)
    if isinstance(lines, Problem):
        yield lines
        return
    for number, line in enumerate(lines, 1):
        fields, at = line.split(None, 1), f"{where}, line {number}"
        if not fields:
            continue
        problem = tables.not_utf8(at, [line])
        if problem is None and fields[0] in entries:
            message = f"found {fields[0]!r} again, first in {entries[fields[0]][0]}; expected unique ids"
            problem = Problem("duplicate id", at, message)
        if problem:
            yield problem
        else:
            entries[fields[0]] = (at, fields[1].strip() if len(fields) > 1 else "")


def _fill_pieces(pieces: dict[str, Piece], entries: dict[str, Entry]) -> Iterator[Problem]:
    """Read the lines ``UTTERANCE RECORDING START END`` of ``segments``, in seconds; yield the problems with them."""
    for name, (where, rest) in entries.items():
        fields = rest.split()
        try:
            start, end = (float(field) for field in fields[1:3])
        except ValueError:
            start = end = math.nan
        if len(fields) != 3 or not (0 <= start < end or (start >= 0 and end == -1)) or not math.isfinite(end):
            yield Problem("bad line", where, f"found {rest!r:.60}, expected RECORDING START END, in seconds")
        else:
            pieces[name] = (fields[0], start, None if end == -1 else end - start)


def _command(where: str, file: str) -> Problem | None:
    """Return the problem with a line of ``wav.scp`` that does not name a file."""
    if file.endswith("|"):
        name = re.search(r"\S+\.(flac|wav|ogg|mp3)\b", file)
        direct = f" {name[0]} itself, or" if name else ""
        message = f"found {file!r:.80}, expected the name of a file: commands are never run; name{direct} its output"
        return Problem("command", where, message + ", saved as a file")
    if re.search(r"\.ark:\d+$", file):
        message = f"found {file!r:.80}, expected the name of an audio file; extract it by wav-copy"
        return Problem("archive", where, message)
    return None


KALDI = Layout(
    "a data folder of Kaldi",
    "wav.scp (UTTERANCE FILE) and text (UTTERANCE TRANSCRIPT), optionally segments, in train, dev and test",
    ("{stem} {file} (in wav.scp)", "{stem} the words of this recording (in text)"),
    ("wav.scp", "segments", "utt2spk"),
    _parts,
    _read,
)
