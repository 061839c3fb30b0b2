"""Folders of recordings in every layout of ``dataset=audio_folder``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.bad_input import good_rows, write_csv


def write_layout(path: Path, layout: str) -> None:
    rows = good_rows(path)
    names = {"train": "train", "validation": "dev", "test": "Test"}
    if layout == "root csv":
        write_csv(path, rows)
    elif layout == "root jsonl":
        lines = [
            json.dumps({"file_name": r["file_name"], "text": r["transcription"], "split": r["split"]}) for r in rows
        ]
        (path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    elif layout == "csv with byte order mark":
        text = "".join(f'{r["file_name"]},"{r["transcription"]}",{names[r["split"]]}\r\n' for r in rows)
        (path / "metadata.csv").write_bytes(f"file_name,sentence,split\r\n{text}".encode("utf-8-sig"))
    else:
        for row in rows:
            target = path / names[row["split"]] / "speaker"
            target.mkdir(parents=True, exist_ok=True)
            (path / row["file_name"]).rename(target / row["file_name"])
            (target / row["file_name"]).with_suffix(".txt").write_text(row["transcription"] + "\n")
            row["file_name"] = f"speaker/{row['file_name']}"
        if layout == "folders with csv":
            for split, name in names.items():
                write_csv(path / name, [row for row in rows if row["split"] == split])
