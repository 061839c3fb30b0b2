"""``dataset=audio_folder``: your own recordings, in a folder.

Layouts, tried in this order:

- ``metadata.csv`` or ``metadata.jsonl`` in the folder: ``file_name`` and a transcript (``transcription``, ``text`` or
  ``sentence``), optionally ``split``;
- folders ``train``, ``validation`` (or ``dev``, ``val``, ``valid``), ``test``, each with such a file or with pairs;
- pairs ``NAME.wav`` + ``NAME.txt`` (any audio format), also in subfolders.

Missing validation and test splits are carved from the training split, by default so that no transcript is in two
splits.
"""

from __future__ import annotations

import csv
import dataclasses
import glob
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from toolkit.config.spec import option, spec
from toolkit.data.columns.text import clean
from toolkit.data.example import SPLITS, Example
from toolkit.data.media.audio import FORMATS
from toolkit.data.problems import Problem, nearest
from toolkit.data.sources.folder import ALIASES, name_in, split_of
from toolkit.data.sources.folder import cut as fill_splits
from toolkit.data.sources.folder import unusable as unusable_folder
from toolkit.datasets.base import SpeechDataset, check_fractions, recording

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

TEXT_COLUMNS = ("transcription", "text", "sentence")
METADATA = ("metadata.csv", "metadata.jsonl")

Record = tuple[str, dict[str, Any]]  # its place in the file, its fields


@spec
class AudioFolder(SpeechDataset):
    """Your own recordings with transcripts."""

    path: str | None = option(None, "folder with the recordings and their transcripts")
    text_column: str | None = option(None, f"column of the transcript; null: the first of {', '.join(TEXT_COLUMNS)}")
    validation_fraction: float = option(
        0.1, "fraction of train to carve if the validation split is missing", ge=0, lt=1
    )
    test_fraction: float = option(0.1, "fraction of train to carve if the test split is missing", ge=0, lt=1)
    split_seed: int = option(0, "seed of the carved splits", ge=0)
    disjoint: bool = option(
        True,
        "carve splits so that no transcript is in two; false for isolated words, where every split needs every word",
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.path:
            yield "path", "not set; set dataset.path=FOLDER, the folder of your recordings"
        yield from check_fractions(self.validation_fraction, self.test_fraction)

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        root = Path(self.path or "")
        if problem := unusable(root):
            yield problem
            return
        items = list(self._read(root))
        yield from (item for item in items if isinstance(item, Problem))
        recordings = [item for item in items if isinstance(item, Example)]
        # A split that the data names but leaves empty is not carved: that would hide the mistake.
        present = {r.split for r in recordings} | {split for split, _ in split_folders(root)}
        yield from cut(
            recordings,
            0 if "validation" in present else self.validation_fraction,
            0 if "test" in present else self.test_fraction,
            self.split_seed,
            self.disjoint,
        )

    def _read(self, root: Path) -> Iterator[Example | Problem]:
        folders = split_folders(root)
        if any((root / name).exists() for name in METADATA):
            yield from self._folder(root, root, "")
        elif folders:
            for split, folder in folders:
                yield from self._folder(root, folder, split)
            yield from stray_folders(root, folders)
        else:
            yield from self._folder(root, root, "")

    def _folder(self, root: Path, folder: Path, split: str) -> Iterator[Example | Problem]:
        files = [folder / name for name in METADATA if (folder / name).exists()]
        if len(files) > 1:
            message = "found both metadata.csv and metadata.jsonl, expected one of them"
            yield Problem("ambiguous metadata", name_in(root, folder), message, fatal=True)
        elif files:
            records = _csv_records(root, files[0]) if files[0].suffix == ".csv" else _json_records(root, files[0])
            for record in records:
                item = record if isinstance(record, Problem) else self._recording(root, folder, split, *record)
                if isinstance(item, Problem) and item.kind == "missing column" and files[0].suffix == ".csv":
                    # All records share the header, so one problem is enough.
                    yield dataclasses.replace(item, where=f"{name_in(root, files[0])}, line 1", fatal=True)
                    return
                yield item
        else:
            yield from _pairs(root, folder, split or "train")

    def _recording(self, root: Path, folder: Path, split: str, where: str, fields: dict[str, Any]) -> Example | Problem:
        column = self.text_column or next((c for c in TEXT_COLUMNS if c in fields), TEXT_COLUMNS[0])
        for name in ("file_name", column):
            if name not in fields:
                return Problem(
                    "missing column", where, f"found {', '.join(fields)}; expected {name!r} too{nearest(name, fields)}"
                )
            if not isinstance(fields[name], str):
                found = f"{fields[name]!r} ({type(fields[name]).__name__})"
                return Problem("wrong type", where, f"{name} is {found}, expected text")
        file_name = fields["file_name"]
        if problem := _bad_file(folder, file_name, where):
            return problem
        split_column = str(fields.get("split") or "").strip().lower()
        split_column = ALIASES.get(split_column, split_column)
        if split and split_column and split_column != split:
            message = f"the column split says {split_column!r}, but the folder is {split!r}"
            return Problem("contradicting split", where, message)
        path = folder / file_name
        identity = str(fields.get("id") or _identity(root, path))
        return recording(identity, split or split_column or "train", fields[column], path, where)


def unusable(root: Path) -> Problem | None:
    """Return the problem with a path that should be a folder of recordings; None if there is none."""
    return unusable_folder(root, "recordings", _layouts())


def split_folders(root: Path) -> list[tuple[str, Path]]:
    """List ``(split, folder)`` of the subfolders named like a split, in the order of SPLITS."""
    named = [(split_of(p), p) for p in sorted(root.iterdir()) if p.is_dir()]
    return sorted(((s, p) for s, p in named if s in SPLITS), key=lambda item: SPLITS.index(item[0]))


def stray_folders(root: Path, known: list[tuple[str, Path]]) -> Iterator[Problem]:
    """Yield a problem for each folder beside the splits that has metadata too: probably a misspelled split."""
    folders = {folder for _, folder in known}
    for folder in sorted(root.iterdir()):
        if folder not in folders and any((folder / name).exists() for name in METADATA):
            options = [*SPLITS, *ALIASES]
            message = f"found the folder {folder.name!r}, expected {', '.join(SPLITS)}{nearest(folder.name, options)}"
            yield Problem("unknown split", f"{folder.name}/", message, fatal=True)


def cut(
    recordings: Sequence[Example], validation: float, test: float, seed: int, disjoint: bool
) -> Iterator[Example | Problem]:
    """Move fractions of the training split to validation and test.

    Recordings with the same transcript stay together (``disjoint``), and the only ones with a character stay in train.
    They are taken in the order of a hash of seed and
    transcript, which depends neither on the order of the files nor on the other recordings.

    Args:
        recordings: of all splits.
        validation, test: fractions of the training split.
        seed: selects the recordings.
        disjoint: keep equal transcripts together.
    """
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in recordings:
        if example.split == "train":
            groups[clean(str(example.values["text"])) if disjoint else example.id].append(example)
    total = sum(map(len, groups.values()))
    message = (
        f"none of the {len(groups)} different transcripts of {total} recordings is rare enough for a split of its "
        "own; provide the splits, or set dataset.disjoint=false to allow a transcript in several splits"
    )
    yield from fill_splits(recordings, groups, validation, test, seed, message, characters)


def characters(example: Example) -> set[str]:
    """Return the characters of a transcript, which the recogniser can only learn from train."""
    return set(clean(str(example.values["text"])))


def _csv_records(root: Path, file: Path) -> Iterator[Record | Problem]:
    """Yield the records of a CSV file (RFC 4180), with the line on which each begins."""
    where = name_in(root, file)
    # Undecodable bytes become surrogates, so that they are reported with their line.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                # An unclosed quote swallows the lines after it, so the rest of the file is unknown.
                message = f"not valid CSV: {error}; is a quote missing or single inside a quoted text?"
                yield Problem("bad line", f"{where}, line {line}", message, fatal=bool(reader.line_num > line))
                continue
            if not row:
                continue
            if header is None:
                header = [name.strip() for name in row]
                continue
            if len(row) != len(header):
                message = f"{len(row)} fields, the header has {len(header)} ({', '.join(header)})"
                hint = "; a text with a comma needs quotes" if len(row) > len(header) else ""
                yield Problem("bad line", f"{where}, line {line}", message + hint)
                continue
            fields = dict(zip(header, row, strict=True))
            yield _not_utf8(f"{where}, line {line}", row) or (f"{where}, line {line}", fields)
    if header is None:
        yield Problem("empty metadata", where, f"found no header, expected file_name and {TEXT_COLUMNS[0]}", fatal=True)


def _json_records(root: Path, file: Path) -> Iterator[Record | Problem]:
    where = name_in(root, file)
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            at = f"{where}, line {number}"
            if problem := _not_utf8(at, [line]):
                yield problem
                continue
            try:
                fields = json.loads(line)
            except json.JSONDecodeError as error:
                yield Problem("bad line", at, f"not valid JSON: {error.msg} at column {error.colno}")
                continue
            if isinstance(fields, dict):
                yield at, fields
            else:
                yield Problem("bad line", at, f"found a JSON {type(fields).__name__}, expected an object {{...}}")


def _pairs(root: Path, folder: Path, split: str) -> Iterator[Example | Problem]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    audio = [path for path in files if path.suffix.lower() in FORMATS]
    texts = {path.with_suffix("") for path in files if path.suffix.lower() == ".txt"}
    if not audio or not texts:
        listing = ", ".join(path.name for path in files[:5]) or "no file"
        yield Problem("no transcripts", name_in(root, folder), f"found {listing}; expected {_layouts()}", fatal=True)
        return
    for path in audio:
        where = name_in(root, path)
        if path.with_suffix("") not in texts:
            yield Problem("missing transcript", where, f"found no {path.stem}.txt beside it")
            continue
        raw = path.with_suffix(".txt").read_bytes()
        text = raw.decode("utf-8-sig", "surrogateescape")
        yield _not_utf8(f"{where[: -len(path.suffix)]}.txt", [text]) or recording(
            _identity(root, path), split, text, path, where
        )
    for stem in sorted(texts - {path.with_suffix("") for path in audio}):
        yield Problem("missing file", f"{name_in(root, stem)}.txt", f"found no audio file {stem.name}.* beside it")


def _not_utf8(where: str, texts: Sequence[str]) -> Problem | None:
    for text in texts:
        for character in text:
            if "\udc80" <= character <= "\udcff":
                message = f"byte 0x{ord(character) - 0xDC00:02x} is not UTF-8; save the file as UTF-8"
                return Problem("not UTF-8", where, message)
    return None


def _bad_file(folder: Path, file_name: str, where: str) -> Problem | None:
    if not file_name.strip() or "\0" in file_name:
        return Problem("missing file", where, f"file_name is {file_name!r}, expected the name of an audio file")
    pure = PurePosixPath(file_name)
    if pure.is_absolute() or ".." in pure.parts:
        message = f"file_name is {file_name!r}, expected a file inside the folder (no '..', no absolute path)"
        return Problem("outside the folder", where, message)
    path = folder / file_name
    if path.is_file():
        return None
    if path.exists():
        return Problem("missing file", where, f"{file_name!r} is not a file")
    alternatives = (
        sorted(p.name for p in path.parent.glob(f"{glob.escape(path.stem)}.*")) if path.parent.is_dir() else []
    )
    hint = f"; did you mean {alternatives[0]!r}?" if alternatives else ""
    return Problem("missing file", where, f"found no file {file_name!r}{hint}")


def _identity(root: Path, path: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _layouts() -> str:
    return "metadata.csv (file_name, transcription) beside the audio files, or NAME.wav + NAME.txt"
