"""Local repositories in the layout of the Hugging Face hub: Parquet files whose metadata declares the features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import bad_input, bad_pictures

STRING = {"_type": "Value", "dtype": "string"}
Rows = Sequence[Mapping[str, Any]]


def repository(path: Path, name: str, parts: Mapping[str, Rows], declared: Mapping[str, Any] | None = None) -> Path:
    """Write a repository with one configuration of this name, and a file for each split.

    Args:
        path: a new folder.
        name: of the configuration.
        parts: split -> its rows.
        declared: column -> its feature, as the hub's library declares it; None: nothing is declared.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.mkdir()
    lines = ["---", "configs:", f"- config_name: {name}", "  data_files:"]
    for split, rows in parts.items():
        table = pa.Table.from_pylist(list(rows))
        if declared:
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": declared}})})
        pq.write_table(table, path / f"{split}.parquet")
        lines += [f"  - split: {split}", f"    path: {split}.parquet"]
    (path / "README.md").write_text("\n".join([*lines, "---", ""]))
    return path


def recordings(path: Path, name: str, parts: Mapping[str, Rows], features: Mapping[str, Any]) -> Path:
    """Write a repository of these rows, each with a recording."""
    full = {
        split: [
            {"audio": {"bytes": bad_input.encoded(bad_input.waveform(7 * len(split) + i)), "path": f"{i}.wav"}} | row
            for i, row in enumerate(rows)
        ]
        for split, rows in parts.items()
    }
    return repository(path, name, full, {"audio": {"_type": "Audio"}} | dict(features))


def images(path: Path, counts: Mapping[str, int], content: str, labels: Mapping[str, Sequence[str]]) -> Path:
    """Write a repository of images.

    Args:
        path: a new folder.
        counts: split -> number of images.
        content: column of the image.
        labels: column -> names of its classes, which the images take in turn.
    """
    parts = {}
    for split, count in counts.items():
        files = [bad_pictures.encoded(bad_pictures.pixels(31 * len(split) + i, 8, 8)) for i in range(count)]
        parts[split] = [
            {content: {"bytes": file, "path": None}} | {c: i % len(names) for c, names in labels.items()}
            for i, file in enumerate(files)
        ]
    declared = {content: {"_type": "Image"}} | {c: {"_type": "ClassLabel", "names": n} for c, n in labels.items()}
    return repository(path, "default", parts, declared)
