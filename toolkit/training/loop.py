"""The training loop, written once for both frameworks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.data.split import Data
from toolkit.training.engine import Engine, NonFinite
from toolkit.training.progress import Progress
from toolkit.training.recorder import Recorder
from toolkit.training.session import Session
from toolkit.training.split import TrainingSplit

if TYPE_CHECKING:
    from toolkit.config.schema import Run


def fit(
    run: Run,
    engine: Engine,
    train: TrainingSplit,
    validation: Data,
    target: Any,
    recorder: Recorder,
    progress: Progress,
) -> None:
    """Train from ``progress`` to the end of the plan.

    Args:
        run, engine, train, validation, target, recorder, progress: see
            :class:`~toolkit.training.session.Session`.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with a checkpoint.
        RunError: a loss is not finite, or a checkpoint cannot be written.
        DataError: a stream has a bad record.
    """
    with Session(run, engine, train, validation, target, recorder, progress) as session:
        for group in session.batches():
            try:
                result = engine.train_step(group, session.learning_rate(), session.position(), session.loss_scale)
            except NonFinite as error:
                session.skip(error)  # float16 only: lowers the loss scale
            else:
                session.record(result)  # log, example ids, loss scale, progress bar
            if session.checkpoint_due():
                session.save()
            session.raise_if_interrupted()  # all ranks agree first
            session.advance()  # to the next epoch or pool, if this one has no batch left
            if session.validation_due():
                session.validate()  # and save
