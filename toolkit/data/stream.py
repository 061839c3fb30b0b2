"""A training split that is read while it is trained on, and never held as a whole.

An epoch takes the shards of the split in an order that (seed, epoch) draws and deals them to a few lanes. Each lane is
read from front to back; as many examples of each lane as a pool has room for are decoded, checked and cut into batches
of like lengths. Where the pool at hand begins is a pair of numbers for each lane, so a checkpoint holds it, and a run
that goes on reads no more than that pool again.

What a batch holds does not depend on the number of processes: each of them reads its own lanes alone, and tells the
others the lengths of what it found.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data import exchange, pipeline
from toolkit.data.batch import Batch, Collate, Fields
from toolkit.data.columns.column import Columns
from toolkit.data.example import Example
from toolkit.data.pipeline import cache_folder, fitting
from toolkit.data.plan import columns
from toolkit.data.position import Position
from toolkit.data.problems import LISTED, Problem, Report, judge
from toolkit.data.split import Data, Learned, Split, batched
from toolkit.errors import DataError, RunError

if TYPE_CHECKING:
    from toolkit.config.schema import Run

Place = list[int]  # of a lane: which of its shards, which record of it
# fields of a dataset that do not change its batches
NO_MATTER = ("path", "on_bad", "split", "sample", "lanes", "repeats")
PATIENCE = 10  # seconds for what reads ahead to end
MEND = (
    "The last checkpoint is whole: resume=auto goes on from it by dataset.on_bad=drop, or when the shards are mended, "
    "by accept=[dataset]"
)
NUMBERS = 1 << 24  # pools of an epoch count their examples from multiples of it, by which augmentation is drawn


@dataclass(frozen=True)
class Pool:
    """Some examples of the split, ready to be batched; it is trained on as a whole split is (``corpus.Data``).

    Args:
        split: the ids of all its examples.
        collator: makes batches of them.
        held: which of them this process has read: from the first number to before the second.
        planned: its batches.
        after: where each lane goes on.
        read: records that were read, the bad ones too; with none the epoch is over.
    """

    split: Any
    collator: Collate
    held: tuple[int, int]
    planned: list[np.ndarray]
    after: list[Place]
    read: int

    def batches(self, epoch: int) -> list[np.ndarray]:
        return self.planned


@dataclass(frozen=True)
class _Found:
    """What this process read for a pool: its lanes' rows for the others, and the examples themselves; or why not."""

    rows: list[Any]
    data: Data | None
    report: Report
    error: DataError | None = None


class Reader:
    """Reads the records of the training split's shards, lane by lane.

    Args:
        run: the run's specs.
        columns: of the run.

    Raises:
        DataError: there is no shard, or the processes cannot share them.
    """

    def __init__(self, run: Run, columns: Columns) -> None:
        self.run, self.dataset, self.columns = run, run.dataset, columns
        self.shards = self.dataset.shards("train", cache_folder())
        count, wanted, ranks = len(self.shards.files), self.dataset.lanes, run.trainer.processes(run.backend)
        if not count:
            raise DataError("train: found no shard of it, expected at least one")
        self.lanes = next(n for n in range(min(count, wanted), 0, -1) if wanted % n == 0)
        if self.lanes % ranks:
            raise DataError(
                f"train: its {count} shards are read in {self.lanes} lanes (dataset.lanes={wanted}), which {ranks} "
                "processes cannot share alike; make more shards, or give a multiple of the processes as dataset.lanes"
            )
        self.stopped = threading.Event()  # what is still read is not wanted any more
        self._open: dict[int, tuple[Any, Iterator[Any]]] = {}

    @property
    def fingerprint(self) -> str:
        """Changes with the names and sizes of the shards, on the hub with the commit; their content is not read."""
        listed = [f"{s.where if s.size is not None else s.url} {s.size}" for s in self.shards.files]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()

    def take(self, epoch: int, lane: int, place: Place, count: int) -> tuple[list[Any], Place]:
        """What the next records of a lane are, and where it then goes on; fewer than ``count`` where it ends."""
        key, rows = self._open.pop(lane, (None, iter(())))
        if key != (epoch, place):
            rows = self._rows(epoch, lane, place)
        found: list[Any] = []
        for example, after in rows:
            found.append(example)
            place = after
            if len(found) == count:
                self._open[lane] = (epoch, place), rows
                return found, place
        return found, [len(range(lane, len(self.shards.files), self.lanes)), 0]

    def _rows(self, epoch: int, lane: int, place: Place) -> Iterator[tuple[Any, Place]]:
        rng = np.random.Generator(np.random.Philox(key=[self.run.seed, epoch]))
        order = rng.permutation(len(self.shards.files))[lane :: self.lanes].tolist()
        first, start = place
        for shard in range(first, len(order)):
            for i, found in enumerate(self.shards.examples(self.dataset, "train", order[shard], start), start + 1):
                if self.stopped.is_set():
                    return
                yield found, [shard, i]
            start = 0

    def sample(self) -> Split:
        """A split of the first examples of all lanes, from which tokenizer and features are learned."""
        each = -(-self.dataset.sample // self.lanes)
        found = [example for lane in range(self.lanes) for example in self.take(0, lane, [0, 0], each)[0]]
        self._open.clear()
        split, problems = self.gather(found)
        judge(problems, self.dataset.on_bad, "the first examples of the stream")
        return split

    def gather(self, examples: Sequence[Example | Problem | None]) -> tuple[Split, list[Problem]]:
        """A split of examples, and the problems of the others."""
        return pipeline.gather(self.dataset, self.columns, [example for example in examples if example is not None])


class Stream:
    """The training split, for the loop (see ``corpus.Data``).

    Args:
        reader: of its shards.
        learned: what the run learned.
    """

    split = None

    def __init__(self, reader: Reader, learned: Learned) -> None:
        self.reader, self.run, self.learned = reader, reader.run, learned
        self.dropped: Counter[str] = Counter()
        self.lines: list[str] = []
        self._pool: tuple[Any, Pool] | None = None
        self._ahead: tuple[Any, Future[_Found]] | None = None
        self._earlier: int | None = None  # examples of the pools that were left behind, once one is there

    @property
    def digest(self) -> str:
        trainer, dataset = self.run.trainer, self.run.dataset
        cut = {f.name: getattr(dataset, f.name) for f in fields(dataset) if f.name not in NO_MATTER}
        settings = (trainer.batch_budget, trainer.batch_examples, self.run.seed, self.reader.lanes, cut)
        return hashlib.sha256(f"{self.reader.fingerprint} {settings}".encode()).hexdigest()

    def describe(self) -> str:
        return f"a stream of {len(self.reader.shards.files):,} shards"

    def steps(self, trainer: Any) -> int:
        return trainer.max_steps

    def position(self, at: Position, accumulate: int) -> int:
        return at.step * accumulate

    def passed(self, at: Position) -> float:
        """Examples since this process began."""
        here = self._pool[1].planned[: at.batch] if self._pool else []
        return (self._earlier or 0) + sum(map(len, here))

    def efficiency(self) -> float | None:
        return None

    def turn(self, engine: Any, at: Position) -> None:
        """Go on to the next pool, where this one has no batch left, and after the last to the next epoch.

        Raises:
            DataError: a bad record, unless it is dropped; an epoch without a good one.
        """
        if at.stream and len(at.stream["places"]) != self.reader.lanes:
            self.lines.append("the place in the epoch was of another number of lanes: the epoch was begun again")
            at.batch, at.stream = 0, {}
        while at.batch >= len((pool := self.part(engine, at)).planned):
            self._earlier = (self._earlier or 0) + sum(map(len, pool.planned))
            self._pool = None
            if not pool.read:
                if not at.stream:
                    raise DataError("train: its shards hold no record, expected at least one")
                at.epoch, at.batch, at.stream = at.epoch + 1, 0, {}
                return
            at.batch, at.stream = 0, {"pool": at.stream.get("pool", 0) + 1, "places": pool.after}

    def part(self, engine: Any, at: Position) -> Pool:
        """The pool at hand; the next one is read meanwhile."""
        key = (at.epoch, at.stream)
        if self._pool and self._pool[0] == key:
            return self._pool[1]
        places = at.stream.get("places", [[0, 0]] * self.reader.lanes)
        pool = self._shared(engine, self._found(engine, at.epoch, places), at)
        if self._earlier is None:
            self._earlier = -sum(map(len, pool.planned[: at.batch]))
        self._pool = key, pool
        following = (at.epoch, pool.after) if pool.read else (at.epoch + 1, [[0, 0]] * self.reader.lanes)
        self._ahead = following, _begun(lambda: self._read(engine, *following))
        return pool

    def close(self) -> None:
        """End what reads ahead: within a library, a thread would take the end of the process badly."""
        self.reader.stopped.set()
        if self._ahead:
            wait([self._ahead[1]], PATIENCE)

    def notes(self) -> Iterator[str]:
        """What was left out so far, in words."""
        if self.dropped:
            yield "left out of the stream: " + ", ".join(f"{n} {kind}" for kind, n in self.dropped.items())
        yield from (f"    {line}" for line in self.lines)

    def _found(self, engine: Any, epoch: int, places: list[Place]) -> _Found:
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return self._read(engine, epoch, places)
        found = ahead[1].result()  # it reads from the same files
        return found if ahead[0] == (epoch, places) else self._read(engine, epoch, places)

    def _read(self, engine: Any, epoch: int, places: list[Place]) -> _Found:
        """The pool's part in this process's lanes."""
        each = max(1, self.run.dataset.pool // self.reader.lanes)
        try:
            taken = {lane: self.reader.take(epoch, lane, places[lane], each) for lane in self._own(engine)}
            data, report = self._data([example for found, _ in taken.values() for example in found])
        except DataError as error:
            return _Found([], None, Report({}, []), error)
        lane_of = {e.where: lane for lane, (found, _) in taken.items() for e in found if isinstance(e, Example)}
        known = data.collator.known(np.arange(len(data.split)))
        rows: dict[int, list[Any]] = {lane: [] for lane in taken}
        for i, name in enumerate(data.split.ids):
            values = [int(column[i]) for field, column in known.items() if field != "example"]
            rows[lane_of[data.split.origins[i]]].append([name, float(data.plan.lengths[i]), *values])
        return _Found([[len(found), after, rows[lane]] for lane, (found, after) in taken.items()], data, report)

    def _own(self, engine: Any) -> range:
        """The lanes of this process."""
        lanes, ranks = self.reader.lanes, engine.ranks
        return range(engine.rank * lanes // ranks, (engine.rank + 1) * lanes // ranks)

    def _data(self, examples: Sequence[Any]) -> tuple[Data, Report]:
        split, problems = self.reader.gather(examples)
        split, more = fitting(self.run, self.reader.columns, split, self.learned)
        report = judge([*problems, *more], self.run.dataset.on_bad, "this stream")
        return batched(self.run, self.reader.columns, split, self.learned, training=True), report

    def _spare(self, engine: Any, epoch: int) -> Data:
        """One example, for a process whose lanes have none while others have: it must work on something."""
        own = self._own(engine)
        for lane in [*own, *(lane for lane in range(self.reader.lanes) if lane not in own)]:
            place = [0, 0]
            while True:
                found, place = self.reader.take(epoch, lane, place, 1)
                data, _ = self._data(found)
                if len(data.split):
                    return data
                if not found:
                    break
        raise RunError("train: its shards hold no usable example")

    def _shared(self, engine: Any, found: _Found, at: Position) -> Pool:
        """The pool, once every process has told what it read.

        Raises:
            DataError: any of them has found bad data; all raise it.
        """
        error = None if found.error is None else [found.error.problems, found.error.headline]
        heard = exchange.gather(engine, [[error, found.report.dropped, found.report.lines[:LISTED], found.rows]])
        if bad := next((error for error, *_ in heard if error), None):
            raise DataError([*bad[0], MEND], bad[1])
        told = [lane for *_, lanes in heard for lane in lanes]
        for _, dropped, lines, _ in heard:
            self.dropped.update(dropped)
            self.lines += lines[: max(0, LISTED - len(self.lines))]
        rows = [row for _, _, lane in told for row in lane]
        starts = np.cumsum([0, *(len(lane) for *_, lane in told)])
        own = self._own(engine)
        held = int(starts[own.start]), int(starts[own.stop])
        data = found.data
        assert data is not None  # no process has an error
        if rows and not len(data.split):
            data = self._spare(engine, at.epoch)
        number = at.stream.get("pool", 0)
        lengths = np.array([row[1] for row in rows])
        names = [name for name in data.collator.known(np.arange(0)) if name != "example"]
        known = {name: np.array([row[2 + i] for row in rows], np.int64) for i, name in enumerate(names)}
        first = number * NUMBERS
        collator = _Collator(replace(data.collator, first=first + held[0]), known, first)  # type: ignore[type-var]
        trainer = self.run.trainer
        key = [self.run.seed, at.epoch, number]
        planned = columns(lengths, starts, trainer.batch_budget, trainer.batch_examples, key) if rows else []
        split = SimpleNamespace(name="train", ids=[row[0] for row in rows])
        return Pool(split, collator, held, planned, [after for _, after, _ in told], sum(n for n, *_ in told))


@dataclass(frozen=True)
class _Collator:
    """Batches of a pool of which this process holds a part.

    Args:
        collator: of that part.
        lengths: of :meth:`toolkit.data.batch.Collate.known`, for the whole pool.
        first: the number of the pool's first example.
    """

    collator: Collate
    lengths: Batch
    first: int

    @property
    def fields(self) -> Fields:
        return self.collator.fields

    def known(self, positions: np.ndarray) -> Batch:
        return {"example": positions + self.first} | {name: values[positions] for name, values in self.lengths.items()}

    def __call__(self, positions: np.ndarray, epoch: int, whole: Batch | None = None) -> Batch:
        return self.collator(positions + self.first, epoch, whole)


def _begun(work: Callable[[], _Found]) -> Future[_Found]:
    """What ``work`` will return, from a thread of its own that does not hold up the end of the process."""
    future: Future[_Found] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # it is raised where the result is wanted
            future.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return future
