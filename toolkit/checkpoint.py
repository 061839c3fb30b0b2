"""The checkpoint on disk: a folder of safetensors and JSON, never a pickle.

``step-00001234/`` holds ``model.safetensors`` (canonical names and layouts), ``optimizer.safetensors`` (its moments
under the same names) and ``state.json`` (step, position in the plan, checksums of the other two). It is written beside,
synced to the disk and renamed, so that a folder of that name is always whole. ``index.json`` names the best and the
last.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import DataError, RunError

FORMAT = 1
Tensors = dict[str, np.ndarray]


@dataclass
class Progress:
    """Where a run stands; all of it is in ``state.json``.

    Args:
        step: optimizer steps done.
        epoch, batch: the next batch of the plan.
        best, best_step: best value of the monitored metric and the step that reached it.
        stale: validations since then.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class State:
    """What an engine holds: weights and the optimizer's moments, canonical."""

    model: Tensors
    optimizer: Tensors


def save(folder: Path, state: State, progress: Progress, keep: int) -> Path:
    """Write ``step-N`` into ``folder`` and drop what ``keep`` no longer covers; the best and the last always stay.

    Raises:
        RunError: the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    from safetensors.numpy import save as pack

    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{progress.step:08d}"
    beside, aside = folder / f".{final.name}.part", folder / f".{final.name}.old"
    shutil.rmtree(beside, ignore_errors=True)
    blobs = {"model.safetensors": pack(state.model), "optimizer.safetensors": pack(state.optimizer)}
    facts = asdict(progress) | {
        "format": FORMAT,
        "sha256": {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()},
    }
    blobs["state.json"] = json.dumps(facts, indent=1).encode()
    try:
        beside.mkdir()
        for name, blob in blobs.items():
            _write(beside / name, blob)
        _sync(beside)
        if final.exists():  # a folder cannot replace one that is not empty, and must never be there by half
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(final, aside)
        os.replace(beside, final)
        shutil.rmtree(aside, ignore_errors=True)
        _point(folder, final.name, progress)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        need = sum(map(len, blobs.values()))
        free = shutil.disk_usage(folder).free
        raise RunError(
            f"{final}: the checkpoint could not be written ({error.strerror}): needs {need:,} bytes, {free:,} are "
            "free. Earlier checkpoints are whole; make room and go on with resume="
        ) from error
    _drop_old(folder, keep)
    return final


def load(folder: Path) -> tuple[State, Progress]:
    """Read one checkpoint folder.

    Raises:
        DataError: a file is missing, damaged or of another format; the message names it.
    """
    from safetensors.numpy import load as unpack

    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise DataError(f"{folder / name}: {error.strerror}; a checkpoint holds this file") from error

    try:
        facts = json.loads(read("state.json"))
        sums, version = facts.pop("sha256"), facts.pop("format")
        if version != FORMAT:  # before its fields, which another format may name otherwise
            raise DataError(f"{folder / 'state.json'}: format {version}, expected {FORMAT}")
        progress = Progress(**facts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / 'state.json'}: damaged ({error}); take an earlier checkpoint") from error
    tensors = []
    for name in ("model.safetensors", "optimizer.safetensors"):
        blob = read(name)
        if hashlib.sha256(blob).hexdigest() != sums.get(name):
            raise DataError(f"{folder / name}: checksum differs from the one in state.json; take an earlier checkpoint")
        tensors.append(unpack(blob))
    return State(*tensors), progress


def find(folder: Path, which: str) -> Path | None:
    """The checkpoint that ``index.json`` names as ``"best"`` or ``"last"``; None where there is none.

    A run that was killed while it wrote the same step again may have left an index whose last is not there, or none;
    then the last is the newest folder, for every folder of that name is whole.
    """
    try:
        name = json.loads((folder / "index.json").read_text())[which]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if name and (folder / name).is_dir():
        return folder / name
    return max(folder.glob("step-*"), default=None) if which == "last" else None


def _point(folder: Path, last: str, progress: Progress) -> None:
    """Rewrite ``index.json``. The best is named only once its folder is whole."""
    best = f"step-{progress.best_step:08d}" if progress.best_step is not None else None
    index: Mapping[str, str | None] = {"last": last, "best": best if best and (folder / best).is_dir() else None}
    write(folder / "index.json", json.dumps(index).encode())


def write(path: Path, blob: bytes) -> None:
    """Replace a file as a whole: written beside, synced, renamed."""
    beside = path.with_name(f".{path.name}.part")
    _write(beside, blob)
    os.replace(beside, path)
    _sync(path.parent)


def _write(path: Path, blob: bytes) -> None:
    with open(path, "wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _drop_old(folder: Path, keep: int) -> None:
    named = {path.name for which in ("best", "last") if (path := find(folder, which))}
    for old in sorted(folder.glob("step-*"))[:-keep]:
        if old.name not in named:
            shutil.rmtree(old, ignore_errors=True)
