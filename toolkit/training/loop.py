"""The training loop, written once for both frameworks: the order of a step. ``session.py`` is what surrounds it."""

from __future__ import annotations

from toolkit.training.engine import NonFinite
from toolkit.training.session import Session


def fit(session: Session) -> None:
    """Train from the session's progress to the end of the plan.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with a checkpoint.
        RunError: a loss is not finite, or a checkpoint cannot be written.
        DataError: a stream has a bad record.
    """
    engine = session.engine
    with session:
        for step in session.steps():
            try:
                result = engine.train_step(
                    step.batches, session.learning_rate(), session.batches_done(), session.loss_scale
                )
            except NonFinite as error:
                session.skip(step, error)  # float16: lowers the loss scale; any other precision: ends the run
            else:
                session.record(step, result)  # log, example ids, loss scale, progress bar
            if session.checkpoint_due():
                session.save()
            session.raise_if_interrupted()  # all ranks agree first
            session.advance()  # to the next epoch or pool, if this one has no batch left
            if session.validation_due():
                session.validate()  # and save
