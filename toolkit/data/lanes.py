"""The lanes of a streamed split: its shards in the order of an epoch, dealt out and read side by side."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolkit.data import pipeline
from toolkit.data.columns.column import Columns
from toolkit.data.example import Example
from toolkit.data.pipeline import cache_folder
from toolkit.data.problems import Problem, Report, judge
from toolkit.data.split import Split
from toolkit.errors import DataError

if TYPE_CHECKING:
    from toolkit.config.schema import Run

Record = Example | Problem | None  # a record of a shard, converted; None: it is skipped
Place = list[int]  # in a lane: number of the shard, number of the record in it


class Reader:
    """Reader of the training split's shards, lane by lane.

    Args:
        run: the run's specs.
        columns: the run's columns.

    Raises:
        DataError: there is no shard, or the lanes cannot be divided among the processes.
    """

    def __init__(self, run: Run, columns: Columns) -> None:
        self.run, self.dataset, self.columns = run, run.dataset, columns
        self.shards = self.dataset.shards("train", cache_folder())
        count, wanted, ranks = len(self.shards.files), self.dataset.lanes, run.trainer.processes(run.backend)
        if not count:
            raise DataError("train: found no shard, expected at least one")
        self.lanes = next(n for n in range(min(count, wanted), 0, -1) if wanted % n == 0)
        if self.lanes % ranks:
            raise DataError(
                f"train: its {count} shards are read in {self.lanes} lanes (dataset.lanes={wanted}), which cannot be "
                f"divided among {ranks} processes; make more shards, or set dataset.lanes to a multiple of {ranks}"
            )
        self.stopped = threading.Event()  # set to stop the prefetch
        self._open: dict[int, tuple[tuple[int, Place], Iterator[tuple[Record, Place]]]] = {}

    @property
    def fingerprint(self) -> str:
        """A hash of the names and sizes of the shards, and of the commit on the hub; their content is not read."""
        listed = [f"{s.where if s.size is not None else s.url} {s.size}" for s in self.shards.files]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()

    def take(self, epoch: int, lane: int, place: Place, count: int) -> tuple[list[Record], Place]:
        """Read the next records of a lane and the place after them; fewer than ``count`` at its end."""
        key, rows = self._open.pop(lane, (None, iter(())))
        if key != (epoch, place):
            rows = self._rows(epoch, lane, place)
        examples: list[Record] = []
        for example, after in rows:
            examples.append(example)
            place = after
            if len(examples) == count:
                self._open[lane] = (epoch, place), rows
                return examples, place
        return examples, [len(range(lane, len(self.shards.files), self.lanes)), 0]

    def _rows(self, epoch: int, lane: int, place: Place) -> Iterator[tuple[Record, Place]]:
        rng = np.random.Generator(np.random.Philox(key=[self.run.seed, epoch]))
        order = rng.permutation(len(self.shards.files))[lane :: self.lanes].tolist()
        first, start = place
        for shard in range(first, len(order)):
            for i, example in enumerate(self.shards.examples(self.dataset, "train", order[shard], start), start + 1):
                if self.stopped.is_set():
                    return
                yield example, [shard, i]
            start = 0

    def sample(self) -> Split:
        """Read the first examples of all lanes as a split, from which tokenizer and features are learned."""
        return self.judged_sample(self.dataset.on_bad)[0]

    def judged_sample(self, on_bad: str) -> tuple[Split, Report]:
        """Read the sample, and return it with the report of what was dropped; ``on_bad`` is the policy."""
        each = -(-self.dataset.sample // self.lanes)
        examples = [example for lane in range(self.lanes) for example in self.take(0, lane, [0, 0], each)[0]]
        self._open.clear()
        split, problems = self.make_split(examples)
        report = judge(
            problems, on_bad, "the first examples of the stream", self.dataset.allowed({"train": len(examples)})
        )
        if not len(split):
            raise DataError(
                f"train: found no usable example among the first {len(examples)}, from which tokenizer and features "
                "are learned; fix them, or raise dataset.sample"
            )
        return split, report

    def make_split(self, examples: Sequence[Record]) -> tuple[Split, list[Problem]]:
        """Make a split of the usable examples, and list the problems of the others."""
        found = [example for example in examples if example is not None]
        split, problems = pipeline.make_split(self.dataset, self.columns, found)
        return split, [replace(problem, split="train") for problem in problems]
