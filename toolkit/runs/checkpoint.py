"""The checkpoint on disk: a folder of safetensors and JSON, never a pickle (``docs/design/checkpoints.md``).

``step-00001234/`` holds ``model.safetensors`` (canonical names and layouts), ``optimizer.safetensors`` (its moments
under the same names), ``ema.safetensors`` where the weights are averaged, copies of what the run learned in
``tokenizer/`` and ``features/``, and ``state.json``: where the run stands, its config, the checksums of all files. It
is written beside, synced to the disk, read back and renamed before anything older goes. ``index.json`` names the best
and the last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.errors import DataError, RunError, room
from toolkit.training.progress import Progress, State, Tensors

FORMAT = 4
EARLIER = {3: "7879d9e"}  # format -> last commit that reads it
LEARNED = "learned"  # folder of a checkpoint and of a run folder: tokenizer, classes, state of the features
STATE = "state.json"


@dataclass(frozen=True)
class About:
    """What a checkpoint says of its run, so that its folder alone is enough to go on.

    Args:
        config: the whole config, as plain data.
        backend: that trained it last.
        versions: of Python and the packages, by name.
        learned: contents of the files below ``learned/``, by relative path.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    backend: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    learned: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """One that was read, and found whole."""

    path: Path
    state: State
    progress: Progress
    about: About


# --- writing ---------------------------------------------------------------------------------------------------------


def save(folder: Path, state: State, progress: Progress, keep: int, about: About | None = None) -> Path:
    """Write ``step-N`` into ``folder`` and drop what ``keep`` no longer covers; the best and the last always stay.

    Raises:
        RunError: the disk is full, cannot be written, or gives back something else; earlier checkpoints are untouched.
    """
    blobs = _packed(state, progress, about or About())
    final = folder / f"step-{progress.step:08d}"
    beside, aside = folder / f".{final.name}.part", folder / f".{final.name}.old"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if aside.exists() and not final.exists():  # a run was killed between the two renamings below
            os.replace(aside, final)
        for rest in (beside, aside):
            shutil.rmtree(rest, ignore_errors=True)
        _write_all(beside, blobs)
        _read_back(beside, blobs)
        if final.exists():  # a folder cannot replace one that is not empty, and must never be there by half
            os.replace(final, aside)
        os.replace(beside, final)
        _sync(folder)
        shutil.rmtree(aside, ignore_errors=True)
        point(folder, final.name, progress)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        if aside.exists() and not final.exists():
            with contextlib.suppress(OSError):  # it is found under this name too
                os.replace(aside, final)
        need = sum(map(len, blobs.values()))
        raise RunError(
            f"{final}: the checkpoint could not be written ({error.strerror or error}): needs {need:,} bytes, "
            f"{room(folder)}. Earlier checkpoints are whole; mend it and go on with resume="
        ) from error
    _drop_old(folder, final.name, keep)
    return final


def _packed(state: State, progress: Progress, about: About) -> dict[str, bytes]:
    """The files by relative path; ``state.json``, which has the checksums of all, comes last."""
    from safetensors.numpy import save as pack

    blobs = {"model.safetensors": pack(state.model), "optimizer.safetensors": pack(state.optimizer)}
    if state.ema:
        blobs["ema.safetensors"] = pack(state.ema)
    blobs |= about.learned
    facts = asdict(progress) | {
        "format": FORMAT,
        "config": dict(about.config),
        "backend": about.backend,
        "versions": dict(about.versions),
        "sha256": {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()},
    }
    facts["sha256"][STATE] = _digest(facts)
    return blobs | {STATE: json.dumps(facts, indent=1).encode()}


def _digest(facts: Mapping[str, Any]) -> str:
    """Of what ``state.json`` says, less this digest itself, however it is spaced."""
    sums = {name: digest for name, digest in facts["sha256"].items() if name != STATE}
    return hashlib.sha256(json.dumps({**facts, "sha256": sums}, sort_keys=True).encode()).hexdigest()


def _write_all(folder: Path, blobs: Mapping[str, bytes]) -> None:
    for name, blob in blobs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _write(folder / name, blob)
    inner = {parent for name in blobs for parent in (folder / name).parents if parent.is_relative_to(folder)}
    for parent in sorted(inner, reverse=True):
        _sync(parent)


def _read_back(folder: Path, blobs: Mapping[str, bytes]) -> None:
    for name, blob in blobs.items():
        if (folder / name).read_bytes() != blob:
            raise OSError(f"{name} reads back otherwise than it was written: the disk or the memory fails")


def point(folder: Path, last: str, progress: Progress) -> None:
    """Rewrite ``index.json``. The best is named only once its folder is whole."""
    best = _name(progress.best_step)
    index: Mapping[str, str | None] = {"last": last, "best": best if best and (folder / best).is_dir() else None}
    write(folder / "index.json", json.dumps(index).encode())


def _name(step: int | None) -> str | None:
    return None if step is None else f"step-{step:08d}"


def _drop_old(folder: Path, last: str, keep: int) -> None:
    """Remove what is no longer covered, what is later than ``last`` (damaged, or of a future given up), and remains."""
    best = find(folder, "best")
    names = sorted(path.name for path in folder.glob("step-*"))
    kept = {*[name for name in names if name <= last][-keep:], *([best.name] if best else [])}
    for name in names:
        if name not in kept:  # renamed first, so that a kill leaves no half of it
            os.replace(folder / name, folder / f".{name}.gone")
    for rest in folder.glob(".step-*"):
        shutil.rmtree(rest, ignore_errors=True)


def adopt(source: Path, folder: Path) -> None:
    """Copy a checkpoint of another run into ``folder``: whole, or not at all."""
    beside = folder / f".{source.name}.part"
    shutil.rmtree(beside, ignore_errors=True)
    files = {p.relative_to(source).as_posix(): p.read_bytes() for p in source.rglob("*") if p.is_file()}
    _write_all(beside, files)
    if not (folder / source.name).exists():
        os.replace(beside, folder / source.name)
        _sync(folder)


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
        if hasattr(os, "posix_fadvise"):  # forget the copy in memory, so that reading back asks the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading ---------------------------------------------------------------------------------------------------------


def candidates(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, the newest first, whole or not.

    A run that was killed while it wrote a step again may have left that step under its passing name only.
    """
    found = [*folder.glob("step-*"), *folder.glob(".step-*.old")]
    return sorted(found, key=lambda path: (path.name.strip(".").removesuffix(".old"), path.name), reverse=True)


def find(folder: Path, which: str) -> Path | None:
    """The ``"last"`` checkpoint, or the ``"best"`` one that ``index.json`` names; None where there is none."""
    found = candidates(folder)
    if which == "last":
        return found[0] if found else None
    try:
        name = json.loads((folder / "index.json").read_text())["best"]
    except (OSError, ValueError, KeyError, TypeError):
        name = next((_name(facts.get("best_step")) for path in found if (facts := _told(path))), None)
    return next((path for path in found if path.name == name), None)


def _told(path: Path) -> dict[str, Any] | None:
    try:
        return _facts(path)
    except DataError:
        return None


def choose(folder: Path, which: str, say: Callable[[str], None]) -> Checkpoint:
    """Read the ``"last"`` or ``"best"`` checkpoint; where it is damaged, ``say`` so and take the newest whole one.

    Raises:
        DataError: there is none, or none is whole; the message names them all.
    """
    wanted = find(folder, which)
    if wanted is None:
        why = "; the run ended before its first validation, or it was removed" if which == "best" else ""
        raise DataError(f"{folder}: no {which} checkpoint{why}")
    damaged: list[str] = []
    for path in dict.fromkeys([wanted, *candidates(folder)]):
        try:
            found = load(path)
        except DataError as error:
            damaged += error.problems
            continue
        for line in damaged:
            say(f"{line}. Taken instead: {path.name}")
        return found
    raise DataError(damaged, f"{folder}: no checkpoint is whole:")


def load(folder: Path) -> Checkpoint:
    """Read one checkpoint folder.

    No file reaches a parser before its checksum was found right.

    Raises:
        DataError: a file is missing, damaged or of another format; the message names it.
    """
    facts = _facts(folder)
    blobs = {}
    for name, digest in facts["sha256"].items():
        if name != STATE:
            blobs[name] = _read(folder / name)
            if hashlib.sha256(blobs[name]).hexdigest() != digest:
                raise DataError(f"{folder / name}: damaged: its checksum differs from the one in {STATE}")
    state = State(
        _tensors(folder / "model.safetensors", blobs),
        _tensors(folder / "optimizer.safetensors", blobs),
        _tensors(folder / "ema.safetensors", blobs) if "ema.safetensors" in blobs else {},
    )
    progress = Progress(**{f.name: facts[f.name] for f in fields(Progress) if f.name in facts})
    learned = {name: blob for name, blob in blobs.items() if name.partition("/")[0] == LEARNED}
    return Checkpoint(folder, state, progress, About(facts["config"], facts["backend"], facts["versions"], learned))


def _facts(folder: Path) -> dict[str, Any]:
    """What ``state.json`` says, held against its own checksum."""
    path = folder / STATE
    try:
        facts = json.loads(_read(path))
        version = facts["format"]
        if version != FORMAT:  # before its fields, which another format may name otherwise
            hint = f"commit {EARLIER[version]} of the toolkit reads it" if version in EARLIER else "update the toolkit"
            raise DataError(f"{path}: found format {version}, expected {FORMAT}; {hint}")
        if facts["sha256"][STATE] != _digest(facts):
            raise ValueError("its checksum differs")
        whole = all(isinstance(facts[name], int) for name in ("step", "epoch", "batch", "stale"))
        if not whole or not all(_allowed(name) for name in facts["sha256"]):
            raise ValueError("a position that is no number, or a file that does not belong into a checkpoint")
        return facts
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error})") from error


def _allowed(name: str) -> bool:
    """Whether a checkpoint may hold a file of that name: it is read, and some are copied into the run folder."""
    top, *below = PurePosixPath(name).parts
    if not below:
        return name in (STATE, "model.safetensors", "optimizer.safetensors", "ema.safetensors")
    return top == LEARNED and ".." not in below and "\\" not in name and "\0" not in name


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; a checkpoint holds this file") from error


def _tensors(path: Path, blobs: Mapping[str, bytes]) -> Tensors:
    """The arrays of a safetensors file: real numbers all, of the kinds that a run writes."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    if path.name not in blobs:
        raise DataError(f"{path}: not listed in {STATE}; a checkpoint holds this file")
    try:
        found = unpack(blobs[path.name])
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DataError(
            f"{path}: no safetensors file of numpy's kinds ({type(error).__name__}: {error}); nothing else is read, "
            "least of all a pickle"
        ) from error
    for name, array in found.items():
        if array.dtype.kind != ("i" if name == "step" else "f"):
            raise DataError(f"{path}: {name}: found {array.dtype}, expected floating point numbers")
    return found
