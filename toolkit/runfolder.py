"""The run folder: everything a run leaves behind, in files that any program reads."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from toolkit.checkpoint import write
from toolkit.errors import RunError

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
    """Writes ``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``tensorboard/``, ``predictions/``,
    ``results.json`` and ``run.log`` under ``path``.

    Raises:
        RunError: ``path`` cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._log: TextIO = open(path / "run.log", "a", encoding="utf-8")  # noqa: SIM115  lives as long as the run
        except OSError as error:
            raise RunError(f"run_dir: {path} cannot be written ({error.strerror}); give another folder") from error
        self._metrics: TextIO | None = None
        self._board: Any = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def describe(self, config: Mapping[str, Any], command: list[str]) -> None:
        """Write ``config.yaml`` and ``environment.json``."""
        from omegaconf import OmegaConf

        write(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))).encode())
        path, now = self.path / "environment.json", environment(command)
        if path.exists():  # a run that goes on
            first = json.loads(path.read_text("utf-8"))
            now = first | {"resumed": [*first.get("resumed", []), now]}
        write(path, json.dumps(now, indent=1).encode())

    def say(self, text: str = "") -> None:
        """Print a line and keep it in ``run.log``."""
        print(text, flush=True)
        self._log.write(text + "\n")
        self._log.flush()

    def rewind(self, step: int) -> None:
        """Drop the rows of ``metrics.jsonl`` that a resumed run is going to write again."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            rows = [line for line in path.read_text("utf-8").splitlines() if _step(line) <= step]
            write(path, "".join(line + "\n" for line in rows).encode())

    def record(self, step: int, epoch: int, split: str, values: Mapping[str, float]) -> None:
        """Append a row to ``metrics.jsonl`` and to the TensorBoard event file."""
        if self._metrics is None:
            from tensorboardX import SummaryWriter  # framework-neutral, unlike torch's and TensorFlow's

            self._metrics = open(self.path / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115
            # hides what a run that was resumed from an earlier checkpoint wrote from here on
            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=step)
        row = {"step": step, "epoch": epoch, "split": split, **values, "time": round(time.time(), 3)}
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)

    def predictions(self, split: str, rows: Iterable[Mapping[str, Any]]) -> None:
        (self.path / "predictions").mkdir(exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write(self.path / "predictions" / f"{split}.jsonl", text.encode())

    def results(self, values: Mapping[str, Any]) -> None:
        write(self.path / "results.json", json.dumps(values, indent=1).encode())

    def close(self) -> None:
        for file in (self._metrics, self._board, self._log):
            if file is not None:
                file.close()


def _step(row: str) -> float:
    """The step of a row; infinity for one that a kill or a full disk left unfinished."""
    try:
        return json.loads(row)["step"]
    except ValueError:
        return float("inf")


def environment(command: list[str]) -> dict[str, Any]:
    """Versions, hardware, commit and command, for whoever wants to run it again."""
    return {
        "command": ["python", "-m", "toolkit.run", *command],
        "commit": _commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


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
    """The checkout's commit, with ``+`` behind it where files differ from it; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "") if commit.returncode == 0 else None
