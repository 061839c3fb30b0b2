"""The checkpoint on disk: a folder of safetensors and JSON, never a pickle (``docs/design/checkpoints.md``).

``step-00001234/`` contains ``model.safetensors`` (canonical names and layouts), ``optimizer.safetensors`` (moments
under the same names), ``ema.safetensors`` if the weights are averaged, copies of the tokenizer, the classes and the
state of the features in ``learned/``, and ``state.json``: the progress, the config, and the checksums of all files. It
is written under a temporary name, synced to the disk, read back and renamed before an older checkpoint is removed.
``index.json`` names the best and the last checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.errors import DataError, RunError, reading, room
from toolkit.training.progress import Progress, State, Tensors

FORMAT = 4
INCOMING = ".step-incoming"  # beside the checkpoints: the best one of another run, before it is in its place
EARLIER = {3: "7879d9e"}  # format -> last commit that reads it
LEARNED = "learned"  # folder of a checkpoint and of a run folder: tokenizer, classes, state of the features
STATE = "state.json"


@dataclass(frozen=True)
class About:
    """Description of the run in its checkpoint, so that the checkpoint's folder is enough to resume.

    Args:
        config: the whole config, as plain data.
        backend: the backend that saved it.
        versions: versions of Python and the packages, by name.
        learned: contents of the files below ``learned/``, by relative path.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    backend: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    learned: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified."""

    path: Path
    state: State
    progress: Progress
    about: About


# --- writing ---------------------------------------------------------------------------------------------------------


def save(folder: Path, state: State, progress: Progress, keep: int, about: About | None = None) -> Path:
    """Write ``step-N`` into ``folder``, and remove all but the last ``keep`` checkpoints and the best one.

    Raises:
        RunError: the disk is full or not writable, or reads back other bytes; earlier checkpoints are untouched.
    """
    blobs = _packed(state, progress, about or About())
    final = folder / _name(progress.step)
    try:
        _place(final, blobs)
        point(folder, final.name, progress)
    except OSError as error:
        raise RunError(
            f"{final}: the checkpoint could not be written ({_reason(error, blobs.values(), folder)}). Earlier "
            f"checkpoints are intact; fix this and set resume={folder.parent}"
        ) from error
    _drop_old(folder, final.name, keep)
    return final


def _place(final: Path, blobs: Mapping[str, bytes]) -> None:
    """Write a checkpoint under a temporary name, read it back, and rename it to ``final``.

    Raises:
        OSError: it could not be written; what ``final`` was before is still there.
    """
    folder = final.parent
    beside, aside = folder / f".{final.name}.part", folder / f".{final.name}.old"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if aside.exists() and not final.exists():  # a run was killed between the two renames below
            os.replace(aside, final)
        for leftover in (beside, aside):
            shutil.rmtree(leftover, ignore_errors=True)
        _write_all(beside, blobs)
        _read_back(beside, blobs)
        if final.exists():  # os.replace cannot replace a folder that is not empty
            os.replace(final, aside)
        os.replace(beside, final)
        _sync(folder)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        if aside.exists() and not final.exists():
            with contextlib.suppress(OSError):  # candidates() also lists this name
                os.replace(aside, final)
        raise


def _reason(error: OSError, blobs: Iterable[bytes], folder: Path) -> str:
    """Say in a message why files could not be written."""
    return f"{error.strerror or error}: needs {sum(map(len, blobs)):,} bytes, {room(folder)}"


def _packed(state: State, progress: Progress, about: About) -> dict[str, bytes]:
    """Return the files by relative path, last of all ``state.json`` with the checksums."""
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
    """Return the checksum of the content of ``state.json`` without this checksum, whatever its white space."""
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
            raise OSError(f"{name}: the bytes read back differ from those written: the disk or the memory is faulty")


def point(folder: Path, last: str, progress: Progress) -> None:
    """Rewrite ``index.json``. It names the best checkpoint only once that folder is complete."""
    best = None if progress.best_step is None else _name(progress.best_step)
    if best and (folder / INCOMING / best).is_dir() and not (folder / best).exists():
        os.replace(folder / INCOMING / best, folder / best)
    index: Mapping[str, str | None] = {"last": last, "best": best if best and (folder / best).is_dir() else None}
    write(folder / "index.json", json.dumps(index).encode())


def _name(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"step-{step:08d}"


def _drop_old(folder: Path, last: str, keep: int) -> None:
    """Remove old checkpoints, those later than ``last`` (damaged, or of an abandoned continuation), and leftovers."""
    best = find(folder, "best")
    names = sorted(path.name for path in folder.glob("step-*"))
    kept = {*[name for name in names if name <= last][-keep:], *([best.name] if best else [])}
    for name in names:
        if name not in kept:  # renamed first, so that a kill leaves no incomplete one
            os.replace(folder / name, folder / f".{name}.gone")
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def take_over(folder: Path, state: State, progress: Progress, about: About, source: Path) -> None:
    """Write the first checkpoints of a run that continues another run's: its state, and the best so far.

    A run that is killed meanwhile has either no checkpoint or both; :func:`point` brings the best to its place.

    Args:
        folder: gets them; it has no checkpoint yet.
        state, progress, about: see :func:`save`.
        source: folder of the other run's checkpoints.

    Raises:
        DataError: the other run's best checkpoint cannot be read.
        RunError: the disk is full or not writable; ``folder`` has no checkpoint, and the other run is untouched.
    """
    last, best = _name(progress.step), _name(progress.step if progress.best_step is None else progress.best_step)
    files: dict[str, bytes] = {}
    if best != last and (source / best).is_dir():
        with reading(source / best, "best checkpoint"):
            paths = [path for path in (source / best).rglob("*") if path.is_file()]
            files = {path.relative_to(source / best).as_posix(): path.read_bytes() for path in paths}
    blobs = _packed(state, progress, about)
    try:
        shutil.rmtree(folder / INCOMING, ignore_errors=True)
        if files:
            _write_all(folder / INCOMING / best, files)
        _place(folder / last, blobs)
        point(folder, last, progress)
    except OSError as error:
        for name in (INCOMING, best, last):
            shutil.rmtree(folder / name, ignore_errors=True)
        reason = _reason(error, [*blobs.values(), *files.values()], folder)
        raise RunError(
            f"{folder}: the checkpoints of {source.parent} could not be copied ({reason}). That run is untouched; fix "
            "this and repeat the command"
        ) from error


def write(path: Path, blob: bytes) -> None:
    """Replace a file atomically: write a temporary file, sync it and rename it."""
    beside = path.with_name(f".{path.name}.part")
    _write(beside, blob)
    os.replace(beside, path)
    _sync(path.parent)


def _write(path: Path, blob: bytes) -> None:
    with open(path, "wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):  # drop the cached copy, so that reading back reads the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading ---------------------------------------------------------------------------------------------------------


def candidates(folder: Path) -> list[Path]:
    """List the checkpoints in ``folder``, newest first, intact or not.

    A run that was killed while it wrote a step again may have left that step under its temporary name only.
    """
    paths = [*folder.glob("step-*"), *folder.glob(".step-*.old")]
    return sorted(paths, key=lambda path: (path.name.strip(".").removesuffix(".old"), path.name), reverse=True)


def find(folder: Path, which: str) -> Path | None:
    """Return the ``"last"`` checkpoint, or the ``"best"`` one by ``index.json``; None if there is none."""
    paths = candidates(folder)
    if which == "last":
        return paths[0] if paths else None
    try:
        name = json.loads((folder / "index.json").read_text())["best"]
    except (OSError, ValueError, KeyError, TypeError):
        steps = (facts.get("best_step") for path in paths if (facts := _readable_facts(path)))
        name = None if (step := next(steps, None)) is None else _name(step)
    return next((path for path in paths if path.name == name), None)


def _readable_facts(path: Path) -> dict[str, Any] | None:
    try:
        return _facts(path)
    except DataError:
        return None


def choose(folder: Path, which: str, say: Callable[[str], None]) -> Checkpoint:
    """Read the ``"last"`` or ``"best"`` checkpoint; if it is damaged, ``say`` so and read the newest intact one.

    Raises:
        DataError: there is none, or all are damaged; the message names them.
    """
    preferred = find(folder, which)
    if preferred is None:
        why = f"; it was removed, or the run ended before its first validation: resume={folder.parent} finishes it"
        raise DataError(f"{folder}: no {which} checkpoint{why if which == 'best' else ''}")
    damaged: list[str] = []
    for path in dict.fromkeys([preferred, *candidates(folder)]):
        try:
            intact = load(path)
        except DataError as error:
            damaged += error.problems
            continue
        for line in damaged:
            say(f"{line}; using {path.name} instead")
        return intact
    raise DataError(damaged, f"{folder}: no checkpoint can be read:")


def load(folder: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Checksums are verified before any file is parsed.

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
    """Read ``state.json`` and verify its checksum."""
    path = folder / STATE
    try:
        facts = json.loads(_read(path))
        version = facts["format"]
        if version != FORMAT:  # before its fields, whose names differ between formats
            hint = "update the toolkit" if version > FORMAT else "an older version of the toolkit reads it"
            if version in EARLIER:
                hint = f"commit {EARLIER[version]} of the toolkit reads it"
            raise DataError(f"{path}: found format {version}, expected {FORMAT}; {hint}")
        if facts["sha256"][STATE] != _digest(facts):
            raise ValueError("its checksum differs")
        numbers = all(isinstance(facts[name], int) for name in ("step", "epoch", "batch", "stale"))
        if not numbers or not all(_allowed(name) for name in facts["sha256"]):
            raise ValueError("a position that is not an integer, or a file that does not belong in a checkpoint")
        return facts
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error})") from error


def _allowed(name: str) -> bool:
    """Tell if a checkpoint may contain a file of this name: files are read, and some copied into the run folder."""
    top, *below = PurePosixPath(name).parts
    if not below:
        return name in (STATE, "model.safetensors", "optimizer.safetensors", "ema.safetensors")
    return top == LEARNED and ".." not in below and "\\" not in name and "\0" not in name


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected in every checkpoint") from error


def _tensors(path: Path, blobs: Mapping[str, bytes]) -> Tensors:
    """Return the arrays of a safetensors file, which must be real numbers of the types that a run writes."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    if path.name not in blobs:
        raise DataError(f"{path}: not listed in {STATE}, expected in every checkpoint")
    try:
        tensors = unpack(blobs[path.name])
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DataError(
            f"{path}: not a safetensors file with numpy's types ({type(error).__name__}: {error}); other formats, "
            "pickles included, are not read"
        ) from error
    for name, array in tensors.items():
        if array.dtype.kind != ("i" if name == "step" else "f"):
            raise DataError(f"{path}: {name}: found {array.dtype}, expected floating point numbers")
    return tensors
