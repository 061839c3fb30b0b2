"""Training under Keras' ``fit``."""

from __future__ import annotations

import contextlib
import gc
import traceback
from types import FrameType
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from toolkit.data.batch import NoBatch, attempt
from toolkit.optimizers import tf as optimizers
from toolkit.training.stock.session import StockSession

if TYPE_CHECKING:
    from toolkit.training.tf import TensorFlowEngine


def fit(engine: TensorFlowEngine, stock: StockSession) -> None:
    """Train the engine's task from the start of the current epoch."""
    model = _Model(engine.task, stock.trainer.clip_norm)
    model.compile(optimizer=engine.optimizer, jit_compile=False)
    batches = _Batches(stock)
    try:
        model.fit(
            batches,
            epochs=stock.trainer.max_epochs - stock.progress.epoch,
            shuffle=False,  # the plan has shuffled
            callbacks=[_Callback(stock)],
        )
    except BaseException as error:
        _clear_frames(error)
        if isinstance(error, tf.errors.OpError) and batches.failed:  # tf.data passes on the text of an exception only
            raise batches.failed[0] from None
        raise


def _clear_frames(error: BaseException) -> None:
    """Free the iterator of tf.data, which frames of Keras hold: its threads cannot end when the interpreter ends."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        caller: FrameType | None = frame
        with contextlib.suppress(RuntimeError):  # a frame that is being executed
            while caller:
                caller.clear()
                caller = caller.f_back
    gc.collect()


class _Model(keras.Model):
    """A task under ``fit``."""

    def __init__(self, task: Any, clip_norm: float | None) -> None:
        super().__init__(autocast=False)
        self.task, self.clip_norm = task, clip_norm
        self.built = True

    @property
    def metrics(self) -> list[Any]:
        """No metrics: ``fit`` would replace the loss of :meth:`train_step` by its running mean, which is empty."""
        return []

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Train on one batch. The loss is that batch's own."""
        batch = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            loss = self.task.loss(batch)
        variables = self.trainable_variables
        gradients, _ = optimizers.clip(tape.gradient(loss, variables), self.clip_norm)
        self.optimizer.apply(gradients, variables)
        return {"loss": loss}


class _Batches(keras.utils.PyDataset):
    """The batches of the current epoch, as planned."""

    def __init__(self, stock: StockSession) -> None:
        super().__init__(workers=max(1, stock.trainer.workers))
        self.stock = stock
        self.failed: list[NoBatch] = []
        self.on_epoch_begin()

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, index: int) -> Any:
        batch = attempt(self.stock.train.collator, self.planned[index], self.epoch)
        if isinstance(batch, NoBatch):
            self.failed.append(batch)
            raise batch
        return batch

    def on_epoch_begin(self) -> None:
        self.epoch, self.planned = self.stock.progress.epoch, self.stock.planned()


class _Callback(keras.callbacks.Callback):
    """Calls the session back."""

    def __init__(self, stock: StockSession) -> None:
        super().__init__()
        self.stock = stock

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.stock.batch_begin()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training |= self.stock.batch_end(logs["loss"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training |= self.stock.epoch_end()
