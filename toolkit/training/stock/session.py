"""The additions of ``trainer=stock`` to Lightning's ``Trainer`` and Keras' ``fit``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.split import Data
from toolkit.training.engine import Engine
from toolkit.training.progress import Progress
from toolkit.training.recorder import Recorder
from toolkit.training.session import Session, Step
from toolkit.training.split import example_ids, naming_examples

if TYPE_CHECKING:
    from toolkit.config.schema import Run


class StockSession(Session):
    """A session whose steps are taken by a framework's stock loop, which calls these methods back: see :func:`fit`.

    Plan, schedule, validation and checkpoints are those of :func:`toolkit.training.loop.fit`. But the training log has
    only the loss, a loss that is not finite is found after the update, and a resumed run restarts the interrupted
    epoch.

    Args:
        run, engine, train, validation, target, recorder, progress: see :class:`Session`.
    """

    train: Data

    def __init__(
        self,
        run: Run,
        engine: Engine,
        train: Data,
        validation: Data,
        target: Any,
        recorder: Recorder,
        progress: Progress,
    ) -> None:
        super().__init__(run, engine, train, validation, target, recorder, progress, hidden=True)
        self._planned: tuple[int, list[np.ndarray]] = -1, []

    def restart(self) -> None:
        """Return to the start of the interrupted epoch, after a validation that a kill cut off."""
        self._catch_up()
        self.progress.batch = 0

    def planned(self) -> list[np.ndarray]:
        """Return the batches of the current epoch, as positions in the training split."""
        if self._planned[0] != self.progress.epoch:
            self._planned = self.progress.epoch, self.train.plan.epoch(self.progress.epoch)
        return self._planned[1]

    def batch_begin(self) -> None:
        """Prepare the engine for the next batch."""
        self.engine.set_step(self.learning_rate(), self.batches_done())

    def batch_end(self, loss: float) -> bool:
        """Log a step, and save if a checkpoint is due; return True if the training is over.

        Raises:
            RunError: the loss is not finite.
            Interrupted: a signal asked the run to stop.
        """
        positions = self.planned()[self.progress.batch : self.progress.batch + 1]
        step = Step([], positions, example_ids(self.train.split, positions))
        if not math.isfinite(loss):
            raise self._not_finite(step)
        self.engine.update_averages()
        self._count(step, loss)
        self._losses.append(loss)
        if self.progress.step % self.trainer.log_every == 0:
            self.recorder.record(self.progress.step, self.progress.epoch, "train", {"loss": loss})
        if self.checkpoint_due():
            self.save()
        self.raise_if_interrupted()
        return self.progress.step >= self.total_steps

    def epoch_end(self) -> bool:
        """Move to the next epoch, and validate if that is due; return True if the training is finished."""
        self.advance()
        if self.validation_due():
            self.validate()
        return self.finished()


def fit(session: StockSession) -> None:
    """Train with the framework's stock loop, from the start of the current epoch.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with a checkpoint.
        RunError: a loss is not finite, a batch cannot be loaded, or a checkpoint cannot be written.
    """
    with session:
        session.restart()
        if not session.finished():
            with naming_examples(session.train.split):
                session.engine.fit_stock(session)
