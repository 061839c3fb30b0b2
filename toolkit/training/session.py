"""A training in progress: everything around an optimizer step that needs no framework."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.batch import Collate, Part
from toolkit.data.split import Data
from toolkit.errors import DataError, Interrupted, RunError, listed
from toolkit.metrics.metric import LOSS
from toolkit.training import loss_scale
from toolkit.training.display import ProgressBar
from toolkit.training.engine import Engine, StepResult
from toolkit.training.evaluation import Evaluation, evaluate
from toolkit.training.progress import Progress
from toolkit.training.recorder import Recorder
from toolkit.training.signals import Signals
from toolkit.training.spec import Trainer
from toolkit.training.split import Source, TrainingSplit, example_ids, naming_examples

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@dataclass(frozen=True)
class Step:
    """The batches of an optimizer step.

    Args:
        batches: loaded, as the engine takes them; a stock loop loads its own.
        positions: the same batches, as positions in the split.
        ids: ids of their examples.
    """

    batches: list[Any]
    positions: list[np.ndarray]
    ids: list[str]


@dataclass(frozen=True)
class _Pass:
    """An epoch, or the rest of it, or a pool of a stream, with the loader of its batches."""

    source: Source
    planned: list[np.ndarray]
    loaded: Iterator[Any]


class Session:
    """The state of a training between two steps, and what happens there: see :func:`toolkit.training.loop.fit`.

    Use it as a context manager, which handles signals and shows the progress bar.

    Args:
        run: the run's specs.
        engine: takes the steps.
        train: what to train on.
        validation: what to validate on.
        target: learned by the target column: tokenizer or classes.
        recorder: keeps log and checkpoints.
        progress: where to start; it is updated with every step.
        hidden: show no progress bar.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        train: TrainingSplit,
        validation: Data,
        target: Any,
        recorder: Recorder,
        progress: Progress,
        hidden: bool = False,
    ) -> None:
        self.run, self.engine, self.train, self.validation = run, engine, train, validation
        self.target, self.recorder, self.progress = target, recorder, progress
        self.trainer: Trainer = run.trainer
        self.total_steps = train.steps(self.trainer)
        loss_scale.start(progress, self.trainer.precision)
        self._signals, self._bar = Signals(), ProgressBar(self.total_steps, progress.step, hidden)
        self._open = ExitStack()
        self._pass: _Pass | None = None
        self._losses: list[float] = []  # since the last validation
        self._saved: int | None = None  # step of the last checkpoint

    def __enter__(self) -> Session:
        self._open.enter_context(self._signals)
        self._open.enter_context(self._bar)
        return self

    def __exit__(self, *exc: Any) -> None:
        self._open.close()

    # --- the next step -----------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[Step]:
        """Load and yield each step, until the training is finished."""
        self._catch_up()
        while not self.finished():
            self._pass = self._pass or self._new_pass()
            if self.progress.batch < len(self._pass.planned):
                yield self._load(self._pass)
            else:  # a pool without a usable example
                self._catch_up()

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        return self.run.optimizer.lr * self.run.schedule.factor(self.progress.step, self.total_steps)

    def batches_done(self) -> int:
        """Return the number of batches since the start of the run, which keys the dropout masks."""
        return self.train.batches_done(self.progress, self.trainer.accumulate)

    @property
    def loss_scale(self) -> float:
        """The loss scale of the next step; 1 where the precision needs none."""
        return self.progress.scale or 1.0

    def finished(self) -> bool:
        """Tell if the training has reached its last step or epoch, or has run out of patience."""
        patience = self.trainer.patience
        return self._over() or (patience is not None and self.progress.stale >= patience)

    def _over(self) -> bool:
        return self.progress.step >= self.total_steps or self.progress.epoch >= self.trainer.max_epochs

    def _new_pass(self) -> _Pass:
        with self._saving_on_failure():
            source = self.train.source(self.engine, self.progress)
        planned = source.batches(self.progress.epoch)
        rest = planned[self.progress.batch :]
        return _Pass(source, planned, self.engine.batches(self._own_rows(source), rest, self.progress.epoch))

    def _own_rows(self, source: Source) -> Collate:
        """Return a collator that makes this process's rows of each batch."""
        if self.engine.ranks == 1:
            return source.collator
        return Part(source.collator, self.engine.rank, self.engine.ranks, self.run.task.amounts, source.held)

    def _load(self, current: _Pass) -> Step:
        with self._saving_on_failure(), naming_examples(current.source.split):
            batches = list(islice(current.loaded, self.trainer.accumulate))
        positions = current.planned[self.progress.batch : self.progress.batch + len(batches)]
        return Step(batches, positions, example_ids(current.source.split, positions))

    def _catch_up(self) -> None:
        """Validate before the first step if a kill fell between the checkpoint of a step and its validation."""
        self.advance()
        if self.validation_due():
            self.validate()

    # --- after a step ------------------------------------------------------------------------------------------------

    def record(self, step: Step, result: StepResult) -> None:
        """Log a step and its examples, and update the loss scale and the progress bar."""
        lr, progress = self.learning_rate(), self.progress
        self._count(step, result.loss)
        self._losses.append(result.loss)
        loss_scale.grow(progress)
        if progress.step % self.trainer.log_every == 0 or progress.step == self.total_steps:
            row = {"loss": result.loss, "lr": lr, "grad_norm": result.gradient_norm}
            row["examples_per_second"] = self._bar.rate()
            self.recorder.record(progress.step, progress.epoch, "train", row | self._scale_row())

    def _scale_row(self) -> dict[str, float]:
        return {"scale": self.progress.scale} if self.progress.scale else {}

    def skip(self, step: Step, error: Exception) -> None:
        """Leave out a step that changed no weights because its loss or gradient is not finite, and lower the scale.

        Raises:
            RunError: the loss scale is not to blame.
        """
        progress = self.progress
        if not loss_scale.shrink(progress):
            raise self._not_finite(step) from error
        self.recorder.say(
            f"step {progress.step + 1}: skipped, its gradient is not finite; loss scale {progress.scale:,.0f}"
        )
        self._count(step, math.nan)

    def _count(self, step: Step, loss: float) -> None:
        """Move past the batches of a step."""
        self.progress.step += 1
        self.progress.batch += len(step.positions)
        self._bar.advance(loss, len(step.ids))
        if self.trainer.log_examples:
            self.recorder.record_examples(self.progress.step, self.progress.epoch, step.ids)

    def _not_finite(self, step: Step) -> RunError:
        """Return the error of a step whose loss or gradient is not finite."""
        return RunError(
            f"step {self.progress.step + 1}: the loss or its gradient is not finite; no checkpoint contains it. Lower "
            f"optimizer.lr or trainer.clip_norm, or look at the batch: {listed(step.ids)}"
        )

    def checkpoint_due(self) -> bool:
        """Tell if this step leaves a checkpoint."""
        return self.progress.step % self.trainer.checkpoint_every == 0

    def save(self) -> None:
        """Write a checkpoint. Rank 0 does; other processes join if they share the weights."""
        if not self.engine.rank or self.engine.sharded:
            self.recorder.save(self.engine.state(), self.progress, self.trainer.keep)
        self._saved = self.progress.step

    def raise_if_interrupted(self) -> None:
        """End the run, with a checkpoint, if any process was asked to stop. Every process must call it.

        Raises:
            Interrupted: in all processes, once rank 0 has saved: the first that ends makes the launcher end the rest.
        """
        if signum := self._signals.agree(self.engine):
            if self._saved != self.progress.step:
                self.save()
            self.engine.total(np.zeros(1))
            raise Interrupted(signum, self.recorder.path)

    def advance(self) -> None:
        """Move to the next epoch, or the next pool of a stream, if the current one has no batch left."""
        before = self.progress.epoch, self.progress.stream
        with self._saving_on_failure():
            self.train.turn(self.engine, self.progress)
        if before != (self.progress.epoch, self.progress.stream):
            self._pass = None

    # --- validation --------------------------------------------------------------------------------------------------

    def validation_due(self) -> bool:
        """Tell if this position needs a validation that it has not had."""
        progress, every = self.progress, self.trainer.validate_steps
        epoch_ended = progress.batch == 0 and not progress.stream and progress.epoch % self.trainer.validate_every == 0
        due = progress.step % every == 0 if every else epoch_ended
        return progress.validated != progress.step and ((due and progress.step > 0) or self._over())

    def validate(self) -> None:
        """Measure the validation split, and write a checkpoint that has the result.

        Raises:
            Interrupted: see :meth:`raise_if_interrupted`.
        """
        self._pass = None  # its loader need not run meanwhile
        self._bar.pause()
        with self._saving_on_failure():
            evaluation = evaluate(self.run, self.engine, self.validation, self.target, quick=True, show_progress=False)
            self.recorder.record(self.progress.step, self.progress.epoch, "validation", evaluation.metrics)
            self._show(evaluation, self._compare(evaluation))
        self.save()
        self.raise_if_interrupted()
        self._losses.clear()
        self._bar.resume()

    def _compare(self, evaluation: Evaluation) -> bool:
        """Note a validation in the progress; return True if it is the best so far. The lower loss decides a tie."""
        progress, name = self.progress, self.run.task.monitor
        progress.validated = progress.step
        value, loss = evaluation.metrics[name], evaluation.metrics[LOSS.name]
        known = progress.best_loss is not None  # not in the checkpoints of earlier versions
        tied = value == progress.best and known and LOSS.improves(loss, progress.best_loss)
        better = tied or self.run.task.metric(name).improves(value, progress.best)
        if better:
            progress.best, progress.best_loss, progress.best_step, progress.stale = value, loss, progress.step, 0
        else:
            progress.stale += 1
        return better

    def _show(self, evaluation: Evaluation, best: bool) -> None:
        shown = "  ".join(
            f"{name} {self.run.task.metric(name).format(value)}" for name, value in evaluation.metrics.items()
        )
        loss, mark = float(np.mean(self._losses or [math.nan])), "  best" if best else ""
        self.recorder.say(
            f"epoch {self.progress.epoch}  step {self.progress.step}  train loss {loss:.3f}  validation {shown}{mark}"
        )
        # always the same few examples, so that one sees them become right
        rows, count = evaluation.rows, self.trainer.show
        for row in rows[:: max(1, len(rows) // max(1, count))][:count]:
            self.recorder.say(f"    reference   {row['reference']}\n    hypothesis  {row['hypothesis']}")

    # --- failures ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _saving_on_failure(self) -> Iterator[None]:
        """Leave a checkpoint before data that are read during the training end it.

        All processes raise a ``DataError`` together. A ``RunError`` is a failure of one process, and the others may be
        elsewhere; in a run of one process it is an interruption if a signal was caught, because a signal to a whole
        process group ends the loader's workers too.
        """
        try:
            yield
        except DataError:
            if self.progress.step:
                self.save()
            raise
        except RunError:
            if self._signals.caught and self.engine.ranks == 1:
                self.save()
                raise Interrupted(self._signals.caught, self.recorder.path) from None
            raise
