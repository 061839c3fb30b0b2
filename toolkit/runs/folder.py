"""The run folder: everything that a run writes, in formats that any program can read."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TextIO

from toolkit.config import cores
from toolkit.errors import RunError, writing
from toolkit.runs import checkpoint
from toolkit.runs.checkpoint import LEARNED, About, write
from toolkit.runs.place import DROPPED, fcntl, unwritable
from toolkit.training import processes
from toolkit.training.progress import Progress, State

LOGS = ("metrics.jsonl", "examples.jsonl")  # one row per event; a resumed run continues them without a break
BOARD_SECONDS = 10  # between two flushes of the TensorBoard file, each of which waits for the disk
PACKAGES = (
    "torch",
    "lightning",
    "tensorflow",
    "tensorflow-text",
    "keras",
    "numpy",
    "hydra-core",
    "safetensors",
    "soxr",
)


class RunFolder:
    """Folder of a run, locked until it is closed.

    It has ``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``examples.jsonl``, ``tensorboard/``,
    ``predictions/``, ``results.json``, ``dropped.txt``, ``run.log``, ``learned/`` and ``checkpoints/``.

    Raises:
        RunError: ``path`` cannot be written, or another run holds its lock.
    """

    writes: ClassVar[bool] = True

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115  lives as long as the run
        except OSError as error:
            raise unwritable(path, error) from error
        self._files: dict[str, BinaryIO] = {}
        self._bytes: dict[str, int] = {}
        self._board: _Board | None = None
        self._about = About()
        if warning := hold(self._lock, path):
            self.say(warning)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_config(self, config: Mapping[str, Any], command: list[str]) -> None:
        """Write ``config.yaml`` and ``environment.json``.

        Every checkpoint from now on also contains the config, the versions and the files below ``learned/``.
        """
        from omegaconf import OmegaConf

        with writing(self.path):
            write(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))).encode())
            path, current = self.path / "environment.json", environment(command)
            if path.exists():  # a resumed run
                first = json.loads(path.read_text("utf-8"))
                current = first | {"resumed": [*first.get("resumed", []), current]}
            write(path, json.dumps(current, indent=1).encode())
        files = [file for file in sorted((self.path / LEARNED).rglob("*")) if file.is_file()]
        learned = {file.relative_to(self.path).as_posix(): file.read_bytes() for file in files}
        self._about = About(config, config["backend"], {"python": platform.python_version(), **packages()}, learned)

    def replace_learned(self, contents: Mapping[str, bytes]) -> None:
        """Replace the files below ``learned/``: tokenizer, classes, state of the features.

        Args:
            contents: contents of the files, by path relative to the run folder.
        """
        folder = self.path / LEARNED
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            for name, blob in contents.items():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                write(self.path / name, blob)

    def take_over(self, state: State, progress: Progress, source: Path) -> None:
        """Write the first checkpoints of a run that continues those of ``source``; its own logs start here."""
        checkpoint.take_over(self.checkpoints, state, replace(progress, log_bytes={}), self._about, source)

    def save(self, state: State, progress: Progress, keep: int) -> Path:
        """Sync the logs to the disk, then save a checkpoint (:func:`toolkit.runs.checkpoint.save`)."""
        for name, file in self._files.items():
            with writing(self.path / name):
                file.flush()
                os.fsync(file.fileno())
        if self._board is not None:
            with writing(self.path / "tensorboard"):
                self._board.flush()
        progress = replace(progress, log_bytes={name: self._bytes[name] for name in LOGS if name in self._bytes})
        return checkpoint.save(self.checkpoints, state, progress, keep, self._about)

    def say(self, text: str = "") -> None:
        """Append a line to ``run.log``, and print it unless standard output is closed, as ``| head`` closes it."""
        text = text.encode("utf-8", "backslashreplace").decode()  # names of files that are not UTF-8
        self._append("run.log", text)
        try:
            print(text, flush=True)
        except BrokenPipeError:
            processes.silence()

    def rewind(self, progress: Progress) -> None:
        """Drop the rows of the logs that a resumed run will write again."""
        for name in LOGS:
            path = self.path / name
            if path.exists():
                length = min(progress.log_bytes.get(name, 0), path.stat().st_size)
                with writing(path), open(path, "r+b") as file:
                    file.truncate(length)
                    os.fsync(file.fileno())
                self._bytes[name] = length

    def record(self, step: int, epoch: int, split: str, values: Mapping[str, float]) -> None:
        """Append a row to ``metrics.jsonl`` and to the TensorBoard event file."""
        row = {"step": step, "epoch": epoch, "split": split, **values, "time": round(time.time(), 3)}
        self._append("metrics.jsonl", json.dumps(row))
        with writing(self.path / "tensorboard"):
            self._board = self._board or _Board(self.path / "tensorboard", step)
            self._board.add(step, {f"{split}/{name}": value for name, value in values.items()})

    def record_examples(self, step: int, epoch: int, ids: list[str]) -> None:
        """Append a row to ``examples.jsonl``: the examples of an optimizer step, in the order of the plan."""
        self._append("examples.jsonl", json.dumps({"step": step, "epoch": epoch, "ids": ids}, ensure_ascii=False))

    def _append(self, name: str, line: str) -> None:
        blob = f"{line}\n".encode()
        with writing(self.path / name, len(blob)):
            if name not in self._files:
                self._files[name] = open(self.path / name, "ab")  # noqa: SIM115
            self._files[name].write(blob)
            self._files[name].flush()
        self._bytes[name] = self._bytes.get(name, 0) + len(blob)

    def write_predictions(self, split: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the predictions of a split, one JSON object per line."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.write_prediction_file(f"{split}.jsonl", text.encode())

    def write_prediction_file(self, name: str, content: bytes) -> None:
        """Write a file below ``predictions/``."""
        path = self.path / "predictions" / name
        with writing(path, len(content)):
            path.parent.mkdir(exist_ok=True)
            write(path, content)

    def write_dropped(self, lines: Sequence[str]) -> None:
        """Write ``dropped.txt``, a line for each example that was left out; there is no file if there is none."""
        path = self.path / DROPPED
        blob = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")  # as in :meth:`say`
        with writing(path, len(blob)):
            if lines:
                write(path, blob)
            else:
                path.unlink(missing_ok=True)  # of a run whose data is mended now

    def write_results(self, values: Mapping[str, Any]) -> None:
        """Write ``results.json``."""
        blob = json.dumps(values, indent=1).encode()
        with writing(self.path / "results.json", len(blob)):
            write(self.path / "results.json", blob)

    def close(self) -> None:
        """Close the files and release the lock."""
        for file in (*self._files.values(), self._board, self._lock):
            if file is not None:
                with contextlib.suppress(OSError):  # the run has already reported the full disk
                    file.close()


class Onlooker(RunFolder):
    """Run folder of the ranks that must not write: it has the paths, and every method does nothing."""

    writes = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def _nothing(self, *_: Any, **__: Any) -> Any:
        return None

    write_config = replace_learned = take_over = save = say = rewind = record = record_examples = _nothing
    write_predictions = write_prediction_file = write_dropped = write_results = close = _nothing


class _Board:
    """TensorBoard event file, written without a thread.

    tensorboardX's own writer passes its events to a thread, and blocks forever once a full disk has ended that thread.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # framework-neutral, unlike torch's and TensorFlow's
        from tensorboardX.proto import event_pb2, summary_pb2

        folder.mkdir(exist_ok=True)
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventsWriter(str(folder / "events"), f".{step}")  # another may have the same time stamp
        self.close, self.flush = self._writer.close, self._writer.flush
        self._due = 0.0
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        # hides the later events of a run that is resumed from an earlier checkpoint
        self._writer.write_event(self._event(wall_time=time.time(), step=step, session_log=start))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        summary = self._summary(value=[self._summary.Value(tag=k, simple_value=v) for k, v in values.items()])
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() > self._due:
            self.flush()
            self._due = time.monotonic() + BOARD_SECONDS


def hold(lock: TextIO, folder: Path) -> str:
    """Lock a run folder for this process, and write its holder into the lock file.

    The system releases the lock when the process ends for any reason. A POSIX lock, unlike one of ``flock``, is not
    inherited by the loader's workers, which may outlive the process.

    Returns:
        a warning if the system has no file locks, else "".

    Raises:
        RunError: another process holds the lock.
    """
    if fcntl is None:
        return f"{folder}: this system has no file locks; make sure that no other run writes there"
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return f"{folder}: no file locks there ({error.strerror}); make sure that no other run writes there"
        lock.seek(0)
        holder = lock.read().strip() or "an unknown process"
        lock.close()
        raise RunError(
            f"run_dir: {folder} is in use by another run ({holder}); wait for it, stop it, or choose another folder"
        ) from error
    since, command = time.strftime("%Y-%m-%d %H:%M:%S"), textwrap.shorten(" ".join(sys.argv), 200)
    with writing(folder / ".lock"):
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {since}: {command}\n")
        lock.flush()
    return ""


def environment(command: list[str]) -> dict[str, Any]:
    """Return versions, hardware, commit and command of the run, so that it can be repeated."""
    return {
        "command": ["python", "-m", "toolkit.run", *command],
        "commit": _commit(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores.count(),
        "python": platform.python_version(),
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Return the versions of the packages that affect the results."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _commit() -> str | None:
    """Return the commit of the checkout, with a trailing ``+`` if tracked files differ; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "") if commit.returncode == 0 else None
