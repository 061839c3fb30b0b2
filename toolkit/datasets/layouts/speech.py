"""The layouts of recordings and transcripts that ``dataset=audio_folder`` knows, and the choice among them."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from toolkit.data.media.audio import FORMATS
from toolkit.data.problems import Problem
from toolkit.data.sources.folder import is_beside, name_in
from toolkit.datasets.layouts import corpora, folders, kaldi
from toolkit.datasets.layouts.layout import Layout, Part
from toolkit.datasets.layouts.records import files_below, subfolders

# Layouts that a folder may have, or the only folder in it that an archive is unpacked to; tried in this order
LISTS = (
    corpora.LJSPEECH,
    folders.METADATA_LAYOUT,
    folders.SPLITS_LAYOUT,
    kaldi.KALDI,
    corpora.TABLES,
    corpora.NEMO,
)
LAYOUTS = (*LISTS, corpora.LIBRISPEECH, folders.PAIRS_LAYOUT)
# Layouts that are recognised by the names of files, the most distinct first
SIGNED = (kaldi.KALDI, corpora.LIBRISPEECH, corpora.LJSPEECH, corpora.TABLES, corpora.NEMO, folders.METADATA_LAYOUT)
SHOWN = 3  # names in a message


def detect(root: Path) -> tuple[Layout, Sequence[Part]] | Problem:
    """Return the layout of a folder and its sets, or the problem that it has none.

    A corpus may be in the only folder inside that has a layout, as an archive unpacks it.
    """
    for layout in LAYOUTS:
        if parts := layout.parts(root):
            return layout, parts
    inside: dict[Path, tuple[Layout, Sequence[Part]]] = {}
    for base in subfolders(root):
        known = ((layout, parts) for layout in LISTS if (parts := layout.parts(base)))
        if layout_of_base := next(known, None):
            inside[base] = layout_of_base
    if len(inside) == 1:
        return next(iter(inside.values()))
    return _unknown(root, [name_in(root, base) for base in inside])


def _unknown(root: Path, corpora_inside: Sequence[str]) -> Problem:
    """Return the problem with a folder in no known layout: its files, the nearest layout, and lines that it has."""
    where, kind = f"dataset.path={root}", "no transcripts"
    if corpora_inside:
        message = f"found several corpora, {', '.join(corpora_inside)}; set dataset.path to the folder of one of them"
        return Problem(kind, where, message, fatal=True)
    files = [file for file in files_below(root) if not is_beside(file.name)]
    names = [name_in(root, file) for file in files]
    suffixes = Counter(file.suffix.lower() or "without suffix" for file in files)
    counts = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common(SHOWN))
    listing = f"{', '.join(names[:SHOWN])} ({counts})" if names else "no file"
    visible = {part for name in names for part in Path(name).parts}
    layout = next((one for one in SIGNED if any(fnmatch.filter(visible, sign) for sign in one.signs)), SIGNED[-1])
    audio = next((Path(name) for name, file in zip(names, files, strict=True) if file.suffix.lower() in FORMATS), None)
    example = audio or Path("NAME.wav")
    lines = [repr(line.format(file=example, stem=example.stem)) for line in layout.lines]
    message = f"found {listing}; the nearest known layout is {layout.name}: {layout.sketch}, with lines such as "
    return Problem(kind, where, message + " and ".join(lines) + _hint(suffixes), fatal=True)


def _hint(suffixes: Counter[str]) -> str:
    if suffixes[".parquet"] or suffixes[".tar"] or suffixes[".tfrecord"]:
        return "; shards are read by dataset=audio_shards"
    packed = next((suffix for suffix in (".zip", ".gz", ".tgz", ".bz2", ".7z") if suffixes[suffix]), "")
    return f"; unpack the {packed} files first" if packed else ""
