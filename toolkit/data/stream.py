"""A training split that is read during training and never held as a whole.

An epoch takes the shards of the split in an order drawn from (seed, epoch) and deals them to a few lanes. Each lane is
read from front to back. A pool takes equally many examples from each lane, decodes and checks them, and cuts them into
batches of similar lengths. The start of the current pool is a pair of numbers for each lane; checkpoints hold it, and a
resumed run reads only that pool again.

The batches do not depend on the number of processes: each process reads only its lanes, and sends the lengths of their
examples to the others.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import astuple, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data import exchange
from toolkit.data.batch import Batch, Collate, Fields
from toolkit.data.example import Example
from toolkit.data.exchange import Ranks
from toolkit.data.lanes import Place, Reader, Record
from toolkit.data.pipeline import fitting
from toolkit.data.plan import cut_lanes
from toolkit.data.position import Position
from toolkit.data.problems import LISTED, Problem, judge
from toolkit.data.split import Data, Learned, batched
from toolkit.errors import DataError, RunError

if TYPE_CHECKING:
    from toolkit.training.spec import Trainer

# fields of a dataset that do not change its batches
NO_MATTER = ("path", "revision", "on_bad", "max_dropped", "split", "sample", "lanes", "repeats")
PATIENCE = 10  # timeout for the prefetch thread, in seconds
MEND = (
    "The last checkpoint is intact. Resume with resume=auto dataset.on_bad=drop or, once the shards are fixed, with "
    "resume=auto accept=[dataset]"
)
NUMBERS = 1 << 24  # the n-th pool of an epoch numbers its examples from n times this; the numbers key the augmentation


@dataclass(frozen=True)
class PoolExamples:
    """The examples of a pool, those of all processes.

    Args:
        name: of the split that is streamed.
        ids: of the examples.
    """

    name: str
    ids: list[str]


@dataclass(frozen=True)
class Pool:
    """Examples of the split that are in memory at a time; training uses them like a ``toolkit.data.split.Data``.

    Args:
        split: the ids of all its examples.
        collator: makes batches of them.
        held: range of the examples that this process has read, end exclusive.
        planned: its batches.
        after: the place in each lane after the pool.
        read: number of records read, bad ones included; 0: the epoch is over.
    """

    split: PoolExamples
    collator: Collate
    held: tuple[int, int]
    planned: list[np.ndarray]
    after: list[Place]
    read: int

    def batches(self, epoch: int) -> list[np.ndarray]:
        return self.planned


@dataclass(frozen=True)
class _PoolPart:
    """This process's part of a pool: rows of its lanes for the other processes, and the examples; or the error."""

    rows: list[Any]
    data: Data | None
    problems: list[Problem]
    error: DataError | None = None


class Stream:
    """A streamed training split (see :class:`toolkit.training.split.TrainingSplit`).

    Args:
        reader: of its shards.
        learned: the state that the run learned.
    """

    def __init__(self, reader: Reader, learned: Learned) -> None:
        self.reader, self.run, self.learned = reader, reader.run, learned
        self.dropped: Counter[str] = Counter()
        self.lines: list[str] = []
        self._pool: tuple[Any, Pool] | None = None
        self._ahead: tuple[tuple[int, list[Place]], Future[_PoolPart]] | None = None
        self._earlier: int | None = None  # examples of the finished pools; None before the first pool

    @property
    def digest(self) -> str:
        trainer, dataset = self.run.trainer, self.run.dataset
        cut = {f.name: getattr(dataset, f.name) for f in fields(dataset) if f.name not in NO_MATTER}
        settings = (trainer.batch_budget, trainer.batch_examples, self.run.seed, self.reader.lanes, cut)
        return hashlib.sha256(f"{self.reader.fingerprint} {settings}".encode()).hexdigest()

    def describe(self) -> str:
        return f"a stream of {len(self.reader.shards.files):,} shards"

    def steps(self, trainer: Trainer) -> int:
        assert trainer.max_steps is not None  # the trainer requires it of a stream
        return trainer.max_steps

    def batches_done(self, at: Position, accumulate: int) -> int:
        return at.step * accumulate

    def passed(self, at: Position) -> float:
        """Return the number of examples since this process started."""
        batches = self._pool[1].planned[: at.batch] if self._pool else []
        return (self._earlier or 0) + sum(map(len, batches))

    def efficiency(self) -> float | None:
        return None

    def turn(self, engine: Ranks, at: Position) -> None:
        """Move to the next pool if this one has no batch left, and after the last pool to the next epoch.

        Raises:
            DataError: a bad record that is not dropped, or an epoch without a good record.
        """
        if at.stream and len(at.stream["places"]) != self.reader.lanes:
            self.lines.append("the checkpoint has another number of lanes; the epoch starts again")
            at.batch, at.stream = 0, {}
        while at.batch >= len((pool := self.source(engine, at)).planned):
            self._earlier = (self._earlier or 0) + sum(map(len, pool.planned))
            self._pool = None
            if not pool.read:
                if not at.stream:
                    raise DataError("train: its shards hold no record, expected at least one")
                at.epoch, at.batch, at.stream = at.epoch + 1, 0, {}
                return
            at.batch, at.stream = 0, {"pool": at.stream.get("pool", 0) + 1, "places": pool.after}

    def source(self, engine: Ranks, at: Position) -> Pool:
        """Return the current pool, and prefetch the next one."""
        key = (at.epoch, at.stream)
        if self._pool and self._pool[0] == key:
            return self._pool[1]
        places = at.stream.get("places", [[0, 0]] * self.reader.lanes)
        pool = self._exchange(engine, self._next_part(engine, at.epoch, places), at)
        if self._earlier is None:
            self._earlier = -sum(map(len, pool.planned[: at.batch]))
        self._pool = key, pool
        following = (at.epoch, pool.after) if pool.read else (at.epoch + 1, [[0, 0]] * self.reader.lanes)
        self._ahead = following, _in_background(lambda: self._read(engine, *following))
        return pool

    def close(self) -> None:
        """Stop the prefetch thread, which may crash if the process ends while it is inside a library."""
        self.reader.stopped.set()
        if self._ahead:
            wait([self._ahead[1]], PATIENCE)

    def notes(self) -> Iterator[str]:
        """Yield lines about the examples dropped so far."""
        if self.dropped:
            yield "dropped from the stream: " + ", ".join(f"{n} {kind}" for kind, n in self.dropped.items())
        yield from (f"    {line}" for line in self.lines)

    def _next_part(self, engine: Ranks, epoch: int, places: list[Place]) -> _PoolPart:
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return self._read(engine, epoch, places)
        part = ahead[1].result()  # even if it is another pool: the thread reads from the same files
        return part if ahead[0] == (epoch, places) else self._read(engine, epoch, places)

    def _read(self, engine: Ranks, epoch: int, places: list[Place]) -> _PoolPart:
        """Read this process's part of a pool."""
        each = max(1, self.run.dataset.pool // self.reader.lanes)
        try:
            taken = {lane: self.reader.take(epoch, lane, places[lane], each) for lane in self._local_lanes(engine)}
            examples = [example for examples, _ in taken.values() for example in examples]
            data, problems = self._data(examples)
        except DataError as error:
            return _PoolPart([], None, [], error)
        lane_of = {e.where: lane for lane, (examples, _) in taken.items() for e in examples if isinstance(e, Example)}
        lengths = data.collator.measure(np.arange(len(data.split)))
        rows: dict[int, list[Any]] = {lane: [] for lane in taken}
        for i, name in enumerate(data.split.ids):
            values = [int(column[i]) for field, column in lengths.items() if field != "example"]
            rows[lane_of[data.split.origins[i]]].append([name, float(data.plan.lengths[i]), *values])
        return _PoolPart(
            [[len(examples), after, rows[lane]] for lane, (examples, after) in taken.items()], data, problems
        )

    def _local_lanes(self, engine: Ranks) -> range:
        """Return the lanes of this process."""
        lanes, ranks = self.reader.lanes, engine.ranks
        return range(engine.rank * lanes // ranks, (engine.rank + 1) * lanes // ranks)

    def _data(self, examples: Sequence[Record]) -> tuple[Data, list[Problem]]:
        split, problems = self.reader.make_split(examples)
        split, more = fitting(self.run, self.reader.columns, split, self.learned)
        return batched(self.run, self.reader.columns, split, self.learned, training=True), [*problems, *more]

    def _judge(self, parts: list[Any]) -> None:
        """Refuse the pool, or count the examples that are dropped from it.

        Raises:
            DataError: a process has read bad data; all of them raise it.
        """
        dataset, problems = self.run.dataset, [Problem(*values) for _, part, _ in parts for values in part]
        try:
            if error := next((error for error, *_ in parts if error), None):
                raise DataError(*error)
            report = judge(problems, dataset.on_bad, "this stream", dataset.allowed({"train": dataset.pool}))
        except DataError as error:
            raise DataError([*error.problems, MEND], error.headline) from error
        self.dropped.update(report.dropped)
        self.lines += report.lines[: max(0, LISTED - len(self.lines))]

    def _spare(self, engine: Ranks, epoch: int) -> Data:
        """Read one example for a process whose lanes have none while others have, since it must compute something."""
        lanes = self._local_lanes(engine)
        for lane in [*lanes, *(lane for lane in range(self.reader.lanes) if lane not in lanes)]:
            place = [0, 0]
            while True:
                examples, place = self.reader.take(epoch, lane, place, 1)
                data, _ = self._data(examples)
                if len(data.split):
                    return data
                if not examples:
                    break
        raise RunError("train: its shards hold no usable example")

    def _exchange(self, engine: Ranks, local: _PoolPart, at: Position) -> Pool:
        """Exchange the parts of all processes, and return the pool.

        Raises:
            DataError: see :meth:`_judge`.
        """
        error = None if local.error is None else [local.error.problems, local.error.headline]
        parts = exchange.gather(engine, [[error, [astuple(problem) for problem in local.problems], local.rows]])
        self._judge(parts)
        lanes = [lane for *_, part in parts for lane in part]
        rows = [row for _, _, lane in lanes for row in lane]
        starts = np.cumsum([0, *(len(lane) for *_, lane in lanes)])
        local_lanes = self._local_lanes(engine)
        span = int(starts[local_lanes.start]), int(starts[local_lanes.stop])
        data = local.data
        assert data is not None  # no process has an error
        if rows and not len(data.split):
            data = self._spare(engine, at.epoch)
        number = at.stream.get("pool", 0)
        lengths = np.array([row[1] for row in rows])
        names = [name for name in data.collator.measure(np.arange(0)) if name != "example"]
        padding = {name: np.array([row[2 + i] for row in rows], np.int64) for i, name in enumerate(names)}
        first = number * NUMBERS
        collator = _Collator(replace(data.collator, first=first + span[0]), padding, first)  # type: ignore[type-var]
        trainer = self.run.trainer
        key = [self.run.seed, at.epoch, number]
        planned = cut_lanes(lengths, starts, trainer.batch_budget, trainer.batch_examples, key) if rows else []
        split = PoolExamples("train", [row[0] for row in rows])
        return Pool(split, collator, span, planned, [after for _, after, _ in lanes], sum(n for n, *_ in lanes))


@dataclass(frozen=True)
class _Collator:
    """A collator of a pool of which this process holds a part.

    Args:
        collator: of that part.
        lengths: the lengths in :meth:`toolkit.data.batch.Collate.measure`, for the whole pool.
        first: number of the pool's first example.
    """

    collator: Collate
    lengths: Batch
    first: int

    @property
    def fields(self) -> Fields:
        return self.collator.fields

    def measure(self, positions: np.ndarray) -> Batch:
        return {"example": positions + self.first} | {name: values[positions] for name, values in self.lengths.items()}

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        return self.collator(positions + self.first, epoch, whole)


def _in_background(work: Callable[[], _PoolPart]) -> Future[_PoolPart]:
    """Run ``work`` in a daemon thread, which does not delay the end of the process, and return its future."""
    future: Future[_PoolPart] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # it is raised where the result is read
            future.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return future
