"""Training under Lightning's ``Trainer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning

from toolkit.data.loaders import torch as loaders
from toolkit.training.stock.session import StockSession
from toolkit.training.strategies.torch import PRECISION

if TYPE_CHECKING:
    from toolkit.training.torch import TorchEngine


def fit(engine: TorchEngine, stock: StockSession) -> None:
    """Train the engine's task from the start of the current epoch."""
    engine.task.optimizer = engine.optimizer.optimizer
    engine.task.fabric = None  # a module belongs to Fabric or to a Trainer
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision=PRECISION[stock.trainer.precision],
        max_epochs=stock.trainer.max_epochs - stock.progress.epoch,
        gradient_clip_val=stock.trainer.clip_norm,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[_Callback(stock)],
        default_root_dir=stock.recorder.path,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(engine.task, datamodule=_Batches(stock))


class _Batches(lightning.LightningDataModule):
    """The batches of the current epoch, as planned."""

    def __init__(self, stock: StockSession) -> None:
        super().__init__()
        self.stock = stock

    def train_dataloader(self) -> Any:
        epoch, workers = self.stock.progress.epoch, self.stock.trainer.workers
        return loaders.loader(self.stock.train.collator, self.stock.planned(), epoch, workers)


class _Callback(lightning.Callback):
    """Calls the session back."""

    def __init__(self, stock: StockSession) -> None:
        self.stock = stock

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, index: int) -> None:
        self.stock.batch_begin()

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, index: int) -> None:
        trainer.should_stop |= self.stock.batch_end(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer: Any, task: Any) -> None:
        trainer.should_stop |= self.stock.epoch_end()
        task.train()
