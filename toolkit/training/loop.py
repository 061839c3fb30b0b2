"""The training loop, written once: epochs, the plan's batches, steps, validation, checkpoints, signals, the log.

An engine (``training/torch.py``, ``training/tf.py``) does what needs a framework.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from toolkit.data.batch import Collate, NoBatch, Part
from toolkit.data.split import Data
from toolkit.errors import DataError, Interrupted, RunError, listed
from toolkit.layers.spec import match
from toolkit.runs.checkpoint import Progress, State
from toolkit.runs.folder import RunFolder
from toolkit.tasks.spec import Row

from .spec import GROW_AFTER, LARGEST_SCALE, SCALE

if TYPE_CHECKING:
    from toolkit.config.schema import Run


class NonFinite(Exception):
    """The loss or the gradient of a step is not finite; the weights were not touched."""


class Engine(Protocol):
    """What the loop asks of a framework. A batch is a dict of the framework's tensors."""

    model: Any  # the twin; its ``spec`` says what it is
    rank: int  # of this process among the ``ranks`` of the run, each of which does all that the loop does
    ranks: int
    sharded: bool  # the processes share the weights: all have to call, in step, whatever needs the whole model

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of ``(n,)`` values over the run's processes, once all have come here; the same for each of them."""

    def batches(self, collator: Collate, batches: list[np.ndarray], epoch: int) -> Iterator[Any]:
        """The framework's loader over the plan's batches."""

    def train_step(self, batches: list[Any], lr: float, position: int, scale: float = 1.0) -> tuple[float, float]:
        """One optimizer step on the mean gradient of ``batches``; ``position`` counts batches since the start.

        ``scale`` is a factor of the loss while it is differentiated, of which nothing else knows.

        Returns:
            the mean loss, and the gradient's norm before clipping.

        Raises:
            NonFinite: before the update.
        """

    def set_step(self, lr: float, position: int) -> None:
        """Set the learning rate, and the position that keys the dropout masks."""

    def average(self) -> None:
        """Move the averaged weights after a step of the stock loop; :meth:`train_step` does so by itself."""

    def averaged(self) -> AbstractContextManager[None]:
        """While it is entered, the model has the averaged weights, if the run keeps any."""

    def fit_stock(self, stock: Stock) -> None:
        """Train under the framework's stock loop, which calls ``stock`` back."""

    def evaluate(self, batch: Any) -> dict[str, np.ndarray]:
        """What the task's ``evaluate`` returns for a batch with targets, as numpy."""

    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        """What the task's ``predict`` returns for a batch of inputs, as numpy."""

    def stepper(self, batch: Any, width: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """For a task that searches: a function that goes one token on in ``width`` hypotheses of each example.

        It takes the rows' last ``tokens`` and, for each row, the row of the step before that it goes on from,
        ``(batch * width,)`` each, and returns log-probabilities ``(batch * width, vocabulary)``.
        """

    def state(self) -> State:
        """For the first process; if ``sharded``, all have to call, and the others are given no parameters."""

    def load(self, state: State) -> None: ...


def start_of_averages(state: State, names: Iterable[str]) -> Mapping[str, np.ndarray]:
    """The averaged weights of a checkpoint; its weights, where it was trained without averaging.

    Raises:
        ValueError: the averages are those of another model.
    """
    names = list(names)
    if names and state.ema:
        match(state.ema, {name: state.model[name].shape for name in names})
    return {name: (state.ema or state.model)[name] for name in names}


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split and a row for each of its examples, in the split's order."""

    metrics: dict[str, float]
    rows: list[dict[str, Any]]


def fit(run: Any, engine: Engine, train: Data, valid: Data, tokenizer: Any, folder: RunFolder, at: Progress) -> None:
    """Train from ``at`` to the end of the plan, leaving checkpoints in ``folder``.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with a checkpoint left.
        RunError: a loss that is not finite, or a checkpoint that cannot be written.
    """
    trainer = run.trainer
    total = train.steps(trainer)
    if trainer.precision != "16":
        at.scale = None
    if not at.scale:
        at.scale, at.good = SCALE if trainer.precision == "16" else None, 0
    recent: list[float] = []  # losses since the last validation
    with Signals() as signals, Display(total, at.step) as display:
        while True:
            with _leaving(signals, engine, folder, at, trainer.keep):
                train.turn(engine, at)
            over = at.step >= total or at.epoch >= trainer.max_epochs
            if _validation_due(trainer, at, over):
                display.pause()
                with _leaving(signals, engine, folder, at, trainer.keep):
                    _validate(run, engine, valid, tokenizer, folder, at, float(np.mean(recent or [math.nan])))
                _save(engine, folder, at, trainer.keep)
                signals.agree(engine)
                signals.heed(engine, folder)
                recent.clear()
                display.resume()
            if over or _patience_over(trainer, at):
                return
            with _leaving(signals, engine, folder, at, trainer.keep):
                part = train.part(engine, at)
            planned = part.batches(at.epoch)
            batches = engine.batches(_own(run, engine, part), planned[at.batch :], at.epoch)
            while at.batch < len(planned) and at.step < total:
                lr = run.optimizer.lr * run.schedule.factor(at.step, total)
                with _leaving(signals, engine, folder, at, trainer.keep), named(part):
                    group = list(islice(batches, trainer.accumulate))
                ids = _ids(part, planned[at.batch : at.batch + len(group)])
                try:
                    found = engine.train_step(group, lr, train.position(at, trainer.accumulate), at.scale or 1.0)
                except NonFinite as error:
                    found = None
                    if not _rescaled(at, False):
                        raise RunError(_not_finite(at, ids)) from error
                    folder.say(f"step {at.step + 1}: left out, its gradient is not finite; loss scale {at.scale:,.0f}")
                at.step, at.batch = at.step + 1, at.batch + len(group)
                display.advance(found[0] if found else math.nan, len(ids))
                if trainer.log_examples:
                    folder.record_examples(at.step, at.epoch, ids)
                if found:
                    recent.append(found[0])
                    _rescaled(at, True)
                    if at.step % trainer.log_every == 0 or at.step == total:
                        row = {"loss": found[0], "lr": lr, "grad_norm": found[1], "examples_per_second": display.rate()}
                        folder.record(at.step, at.epoch, "train", row | ({"scale": at.scale} if at.scale else {}))
                signals.agree(engine)
                if signals.agreed or at.step % trainer.checkpoint_every == 0:
                    _save(engine, folder, at, trainer.keep)
                    signals.heed(engine, folder)
                if trainer.validate_steps and at.step % trainer.validate_steps == 0:
                    break


def _own(run: Any, engine: Engine, part: Any) -> Collate:
    """Makes this process's rows of each batch."""
    if engine.ranks == 1:
        return part.collator
    return Part(part.collator, engine.rank, engine.ranks, run.task.amounts, part.held)


def _rescaled(at: Progress, finite: bool) -> bool:
    """Move the loss scale after a step; False, if the step was not finite and no scale is to blame, or no longer."""
    if at.scale is None:
        return finite
    at.good = at.good + 1 if finite else 0
    if not finite:
        at.scale /= 2
    elif at.good == GROW_AFTER:
        at.scale, at.good = min(2 * at.scale, LARGEST_SCALE), 0
    return at.scale >= 1


def _save(engine: Engine, folder: RunFolder, at: Progress, keep: int) -> None:
    """Leave a checkpoint, which the first process writes; the others are needed if they hold parts of it."""
    if not engine.rank or engine.sharded:
        folder.save(engine.state(), at, keep)


def gather(engine: Engine, rows: list[Any]) -> list[Any]:
    """The rows of all processes, for each of them: plain data, in the order of the ranks."""
    if engine.ranks == 1:
        return rows
    text = np.frombuffer(json.dumps(rows).encode(), np.uint8)
    sizes = engine.total(len(text) * (np.arange(engine.ranks) == engine.rank)).astype(np.int64)
    ends = np.cumsum(sizes)
    sent = np.zeros(ends[-1])
    sent[ends[engine.rank] - len(text) : ends[engine.rank]] = text
    parts = np.split(engine.total(sent).astype(np.uint8), ends[:-1])
    return [row for part in parts for row in json.loads(part.tobytes())]


@contextlib.contextmanager
def named(data: Data) -> Iterator[None]:
    """Turns what a loader says of positions in a split into one line about examples.

    Raises:
        RunError: no batch could be made.
    """
    try:
        yield
    except NoBatch as error:
        which = f"the batch at hand: {listed(_ids(data, [error.positions]))}" if error.positions else "no batch at hand"
        raise RunError(f"{data.split.name}: {error.why}; {which}. The last checkpoint is whole") from error


@contextlib.contextmanager
def _leaving(signals: Signals, engine: Engine, folder: RunFolder, at: Progress, keep: int) -> Iterator[None]:
    """Leaves a checkpoint where data that are read on the way are bad; and where a signal to a whole group of processes
    ended the loader's workers too, for the run is interrupted then, not failed.

    One process of several has failed then: the others may be elsewhere.
    """
    try:
        yield
    except DataError:  # which all processes raise together
        if at.step:
            _save(engine, folder, at, keep)
        raise
    except RunError:
        if signals.caught and engine.ranks == 1:
            _save(engine, folder, at, keep)
            raise Interrupted(signals.caught, folder.path) from None
        raise


def _validation_due(trainer: Any, at: Progress, over: bool) -> bool:
    """Whether a validation belongs here and is not in the checkpoint: a kill may fall between the two of one step."""
    every = trainer.validate_steps
    ended = at.batch == 0 and not at.stream and at.epoch % trainer.validate_every == 0
    due = at.step % every == 0 if every else ended
    return at.validated != at.step and ((due and at.step > 0) or over)


@dataclass
class Stock:
    """What ``trainer=stock`` adds to Lightning's ``Trainer`` and Keras' ``fit``, which call its methods back.

    Plan, schedule, validation and checkpoints are those of :func:`fit`. The log has the loss alone, a loss that is not
    finite is seen only after the update, and a resumed run begins the interrupted epoch again.
    """

    run: Any
    engine: Engine
    train: Data
    valid: Data
    tokenizer: Any
    folder: RunFolder
    at: Progress

    def __post_init__(self) -> None:
        self.at.batch = 0
        self.total = self.train.steps(self.run.trainer)
        self.signals = Signals()

    def batch_begin(self) -> None:
        lr = self.run.optimizer.lr * self.run.schedule.factor(self.at.step, self.total)
        self.engine.set_step(lr, self.at.epoch * len(self.train.plan) + self.at.batch)

    def batch_end(self, loss: float) -> bool:
        """Returns whether the run is over."""
        at = self.at
        ids = _ids(self.train, self.train.plan.epoch(at.epoch)[at.batch : at.batch + 1])
        if not math.isfinite(loss):
            raise RunError(_not_finite(at, ids))
        self.engine.average()
        at.step, at.batch = at.step + 1, at.batch + 1
        if self.run.trainer.log_examples:
            self.folder.record_examples(at.step, at.epoch, ids)
        if at.step % self.run.trainer.log_every == 0:
            self.folder.record(at.step, at.epoch, "train", {"loss": loss})
        self.signals.agree(self.engine)
        if self.signals.agreed or at.step % self.run.trainer.checkpoint_every == 0:
            self.folder.save(self.engine.state(), at, self.run.trainer.keep)
        self.signals.heed(self.engine, self.folder)
        return at.step >= self.total

    def epoch_end(self, loss: float) -> bool:
        """Returns whether the run is over."""
        at, trainer = self.at, self.run.trainer
        if at.batch == len(self.train.plan):
            at.epoch, at.batch = at.epoch + 1, 0
        over = at.step >= self.total
        if over or _validation_due(trainer, at, over):
            _validate(self.run, self.engine, self.valid, self.tokenizer, self.folder, at, loss)
            self.folder.save(self.engine.state(), at, trainer.keep)
            self.signals.agree(self.engine)
            self.signals.heed(self.engine, self.folder)
        return over or _patience_over(trainer, at)


def evaluate(run: Run, engine: Engine, data: Data, target: Any, final: bool = True) -> Evaluation:
    """Decode a whole split (see :func:`decode`) and measure it."""
    rows = decode(run, engine, data, target, final)
    return Evaluation({"loss": float(np.mean([r["loss"] for r in rows]))} | run.task.measure(rows), rows)


def decode(run: Run, engine: Engine, data: Data, target: Any, final: bool = True) -> list[dict[str, Any]]:
    """A row for each example of a split, in its order: id, reference, hypothesis, score, loss, what the task adds.

    It is the averaged weights that answer, where the run keeps them.

    Args:
        final: at the end of a run, with a progress bar on a terminal; else between epochs, where a task may be quicker.
    """
    from rich.console import Console
    from rich.progress import track

    hidden = not (final and Console().is_terminal)
    planned = data.plan.in_order()
    if not engine.sharded:  # every process decodes some of the batches; with a part of the weights none can alone
        planned = planned[engine.rank :: engine.ranks]
    batches = engine.batches(data.collator, planned, 0)
    rows: list[tuple[int, dict[str, Any]]] = []
    with named(data), engine.averaged():
        for batch in track(batches, "evaluate", len(planned), transient=True, disable=hidden):
            rows += answers(run, engine, batch, target, data.split.target is not None, quick=not final)
    # all have decoded all of it, if sharded; the first is believed, so that no last bit makes them decide differently
    found = dict(gather(engine, [] if engine.sharded and engine.rank else rows))
    split = data.split
    known = [{}] * len(split) if split.target is None else [{"reference": text} for text in split.references]
    return [{"id": split.ids[i]} | known[i] | found[i] for i in range(len(split))]


def answers(run: Run, engine: Engine, batch: Any, target: Any, labelled: bool, quick: bool) -> list[tuple[int, Row]]:
    """Position and answer of each example of a batch.

    Args:
        target: learned by the target column.
        labelled: the batch has targets; then the answers have the task's figures too, such as the loss.
        quick: between epochs, where a task may search with less effort.
    """
    task = run.task
    outputs = figures = engine.evaluate(batch) if labelled else {}
    if task.autoregressive:
        search = task.search(run, batch, quick)
        outputs = search.run(engine.stepper(batch, search.width))
    elif not labelled:
        outputs = engine.predict(batch)
    rows = task.decode(outputs, target)
    for name in task.measured if labelled else ():
        for row, value in zip(rows, figures[name].tolist(), strict=True):
            row[name] = value
    return list(zip(np.asarray(batch["example"]).tolist(), rows, strict=True))


def _validate(
    run: Any, engine: Engine, valid: Data, tokenizer: Any, folder: RunFolder, at: Progress, loss: float
) -> None:
    found = evaluate(run, engine, valid, tokenizer, final=False)
    folder.record(at.step, at.epoch, "validation", found.metrics)
    at.validated = at.step
    value = found.metrics[run.task.monitor]
    better = run.task.metric(run.task.monitor).improves(value, at.best)
    if better:
        at.best, at.best_step, at.stale = value, at.step, 0
    else:
        at.stale += 1
    shown = "  ".join(f"{k} {run.task.metric(k).format(v)}" for k, v in found.metrics.items())
    mark = "  best" if better else ""
    folder.say(f"epoch {at.epoch}  step {at.step}  train loss {loss:.3f}  validation {shown}{mark}")
    # the same few examples each time, so that one sees them become right
    for row in found.rows[:: max(1, len(found.rows) // max(1, run.trainer.show))][: run.trainer.show]:
        folder.say(f"    reference   {row['reference']}\n    hypothesis  {row['hypothesis']}")


def _patience_over(trainer: Any, at: Progress) -> bool:
    return trainer.patience is not None and at.stale >= trainer.patience


def _ids(data: Data, batches: Iterable[Iterable[int]]) -> list[str]:
    """The examples of some batches of the plan, by their ids."""
    return [data.split.ids[i] for batch in batches for i in batch]


def _not_finite(at: Progress, ids: list[str]) -> str:
    return (
        f"step {at.step + 1}: the loss or its gradient is not finite; no checkpoint has it. Lower "
        f"optimizer.lr or trainer.clip_norm, or look at the batch: {listed(ids)}"
    )


class Signals:
    """Turns the first SIGINT or SIGTERM into a flag, so that the step is finished and saved; a second ends at once."""

    def __enter__(self) -> Signals:
        self.caught = 0  # by this process
        self.agreed = 0  # by all of them, at the last agree()
        self._before = {s: signal.signal(s, self._catch) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _catch(self, signum: int, frame: Any) -> None:
        self.caught = signum
        for s in self._before:
            signal.signal(s, signal.SIG_DFL)

    def agree(self, engine: Engine) -> None:
        """Let every process know what any has caught: they end after the same step."""
        self.agreed = self.caught
        if engine.ranks > 1:
            asked = (signal.SIGINT, signal.SIGTERM)
            counts = engine.total(np.array([self.caught == signum for signum in asked], np.float64))
            self.agreed = next((signum for signum, count in zip(asked, counts, strict=True) if count), 0)

    def heed(self, engine: Engine, folder: RunFolder) -> None:
        """End the run if it was asked to, all processes together: what has started them ends the rest after the first.

        Raises:
            Interrupted: call it where a checkpoint was just left.
        """
        if self.agreed:
            engine.total(np.zeros(1))  # the first has saved
            raise Interrupted(self.agreed, folder.path)

    def __exit__(self, *exc: Any) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)


class Display:
    """The progress bar: steps, loss, examples a second, time left."""

    def __init__(self, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console()
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:.1f} examples/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,  # a log file wants whole lines and no bar
            transient=True,
        )
        self._task = self._bar.add_task("train", total=total, completed=done, loss=math.nan, rate=0.0)
        self._examples = 0
        self._since = time.perf_counter()

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._bar.stop()

    def advance(self, loss: float, examples: int) -> None:
        self._examples += examples
        self._bar.update(self._task, advance=1, loss=loss, rate=self._speed())

    def rate(self) -> float:
        """Examples a second since the last call."""
        speed = self._speed()
        self._examples, self._since = 0, time.perf_counter()
        return round(speed, 2)

    def _speed(self) -> float:
        return self._examples / max(time.perf_counter() - self._since, 1e-9)

    def pause(self) -> None:
        """Stop the clock: what follows is not training."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        self._since += time.perf_counter() - self._paused
