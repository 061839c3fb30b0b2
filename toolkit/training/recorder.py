"""The contract of the log and the checkpoints of a training; ``toolkit/runs/folder.py`` implements it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from toolkit.training.progress import Progress, State


class Recorder(Protocol):
    """The log and the checkpoints of a run."""

    @property
    def path(self) -> Path:
        """Folder of the run."""

    def say(self, text: str = "") -> None:
        """Show a line to the user, and keep it."""

    def record(self, step: int, epoch: int, split: str, values: Mapping[str, float]) -> None:
        """Log the metrics of a step or a validation."""

    def record_examples(self, step: int, epoch: int, ids: list[str]) -> None:
        """Log the examples of a step."""

    def save(self, state: State, progress: Progress, keep: int) -> object:
        """Write a checkpoint, and drop all but the best and the ``keep`` last ones."""
