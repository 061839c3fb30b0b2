"""The torch engine, on Lightning Fabric; and the same parts under the stock Lightning ``Trainer``."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy
from torch.optim.swa_utils import get_ema_multi_avg_fn

from toolkit.config.build import build
from toolkit.data.batch import Collate
from toolkit.data.loaders import torch as loaders
from toolkit.data.split import Learned
from toolkit.layers import parameters as weights
from toolkit.layers import torch as layers
from toolkit.optimizers import torch as optimizers
from toolkit.runs.checkpoint import State

from .loop import NonFinite, Stock, start_of_averages
from .spec import check_gpus, sharing

PRECISION: dict[str, Any] = {"64": "64-true", "32": "32-true", "bf16": "bf16-mixed"}


class _Mixed(MixedPrecision):
    """Autocast and nothing else: inputs stay as they are, waveforms above all, and the loop scales the loss."""

    def __init__(self, precision: str) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        scaler = torch.amp.GradScaler(device, enabled=False) if precision == "16" else None
        super().__init__("16-mixed" if precision == "16" else "bf16-mixed", device, scaler)

    def convert_input(self, data: Any) -> Any:
        return data


# how long a process waits for the others: the first may decode a large data set meanwhile. One that has died is seen by
# its closed connection, or by what launched it, at once
WAIT = timedelta(days=1)


def connect(run: Any) -> lightning.Fabric:
    """Join the other processes of the run, where it has any; waits for the first.

    Raises:
        ConfigError: there are GPUs, but not so many.
    """
    trainer: Any = run.trainer
    how = _many(trainer) if trainer.shares > 1 else _one()
    if trainer.precision in ("bf16", "16"):
        how["plugins"] = [_Mixed(trainer.precision), *how.get("plugins", [])]
    else:
        how["precision"] = PRECISION[trainer.precision]
    fabric = lightning.Fabric(**how)
    fabric.launch()
    if trainer.shares > 1:
        atexit.register(torch.distributed.destroy_process_group)
    return fabric


def _one() -> dict[str, Any]:
    """What Fabric is told of one device: not to look at the variables of Slurm, which may count more tasks."""
    return {"accelerator": "auto", "devices": 1, "plugins": [LightningEnvironment()]}


class _Sharded(DDPStrategy):
    """Processes as under DDP, each of which holds a part of the model and not the whole.

    Fabric's own ``ModelParallelStrategy`` refuses float64, and talks in groups that wait for half an hour only.
    """

    def module_to_device(self, module: Any) -> None:
        """Sharding moves it, block by block."""

    def setup_module(self, module: Any) -> Any:
        layers.shard(module.model, self.root_device.type)
        return module.to(self.root_device)  # what the features keep


def _many(trainer: Any) -> dict[str, Any]:
    """What Fabric is told of several devices."""
    gpus = torch.cuda.device_count()
    check_gpus(trainer.devices, gpus)
    if sharing("torch", trainer) == "fsdp":
        strategy: DDPStrategy = _Sharded(timeout=WAIT)
    else:
        strategy = DDPStrategy(timeout=WAIT, broadcast_buffers=False)  # all processes compute the same statistics
    where = {"accelerator": "cuda" if gpus else "cpu", "devices": trainer.devices, "num_nodes": trainer.nodes}
    return {**where, "strategy": strategy, "plugins": [_environment()]}


def _environment() -> Any:
    """By what the run's processes were started, as ``ranks.started`` tells it; Lightning's own guess depends on more,
    such as on what the job of Slurm is called."""
    if "WORLD_SIZE" not in os.environ:
        return SLURMEnvironment()
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()


def make_task(run: Any, learned: Learned) -> Any:
    """The run's task, a ``LightningModule``, with its initial weights."""
    model = build(run.model, "torch", learned.inputs, learned.outputs)
    layers.set_weights(model, weights.initial(run.model.parameters(learned.inputs, learned.outputs), run.seed))
    layers.bind(model, run.seed)
    features = run.features and build(run.features, "torch", learned.features)
    return build(run.task, "torch", features, model)


class Engine:
    """One process of a torch run (see ``loop.Engine``).

    Args:
        run: the run's specs.
        learned: tokenizer and state of the features.
        link: of :func:`connect`, where that was called before.
    """

    def __init__(self, run: Any, learned: Learned, link: lightning.Fabric | None = None) -> None:
        torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32 on a GPU too, as on the other backend
        self.trainer = run.trainer
        # Fabric computes 64-true in float64, but hands out everything, the loss too, in torch's default type
        torch.set_default_dtype(torch.float64 if run.trainer.precision == "64" else torch.float32)
        self.fabric = link or connect(run)
        self.rank, self.ranks = self.fabric.global_rank, self.fabric.world_size
        self.sharded = self.ranks > 1 and sharing("torch", run.trainer) == "fsdp"
        self.task = make_task(run, learned)
        self.model = self.task.model
        self.module = self.fabric.setup_module(self.task)
        optimizer = build(run.optimizer, "torch", list(self.model.named_parameters()))  # of the parts, if sharded
        self.optimizer: Any = self.fabric.setup_optimizers(optimizer)
        trained = self.model.named_parameters() if run.trainer.ema_decay else ()
        self.averages = {name: p.detach().clone() for name, p in trained if p.requires_grad}
        self._move = get_ema_multi_avg_fn(run.trainer.ema_decay or 0.0)
        for method in ("loss", "evaluate", *(("begin", "advance") if run.task.autoregressive else ("predict",))):
            self.module.mark_forward_method(method)

    def batches(self, collator: Collate, batches: list[np.ndarray], epoch: int) -> Iterator[Any]:
        return iter(loaders.loader(collator, batches, epoch, self.trainer.workers))

    def set_step(self, lr: float, position: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        layers.set_step(self.model, position)

    def train_step(self, batches: list[Any], lr: float, position: int, scale: float = 1.0) -> tuple[float, float]:
        total = 0.0
        for i, batch in enumerate(batches):
            self.set_step(lr, position + i)
            with self.fabric.autocast():  # of a module that it has not wrapped, Fabric does so in forward alone
                loss = self._loss(batch) / len(batches)
            if self.ranks == 1:
                self.fabric.backward(loss * scale if scale != 1 else loss)
            else:  # the mean over the processes is taken, but the sum is wanted
                # where weights are sharded, whole gradients would not fit: they are summed after every batch
                waits = i + 1 < len(batches) and not self.sharded
                with self.fabric.no_backward_sync(self.module) if waits else contextlib.nullcontext():
                    self.fabric.backward(loss * (scale if scale != 1 else self.ranks))
            total += float(loss.detach())
        if self.ranks > 1:
            total = float(self.total(np.array([total]))[0])
        if scale != 1:  # mean to sum only now: the backward pass overflows where that of one device does
            gradients = [layers.part(p.grad) for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, self.ranks / scale)
        limit = self.trainer.clip_norm or float("inf")
        found: Any = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        norm = float(found.full_tensor() if self.sharded else found)
        if not np.isfinite([total, norm]).all():
            self.optimizer.zero_grad()
            raise NonFinite
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average()
        return total, norm

    def _loss(self, batch: Any) -> torch.Tensor:
        """This process's part of a batch's loss: the parts of all add up to it."""
        if self.ranks == 1:
            return self.module.loss(self.fabric.to_device(batch))
        share = float(batch["share"])
        layers.set_rows(self.model, int(batch["before"]), share > 0)
        return self.module.loss(self.fabric.to_device(batch)) * share

    def total(self, values: np.ndarray) -> np.ndarray:
        if self.ranks == 1:
            return values
        found = torch.from_numpy(values.astype(np.float64)).to(self.fabric.device)
        torch.distributed.all_reduce(found)
        return found.cpu().numpy()

    def average(self) -> None:
        if self.averages:
            weights = [layers.part(self.model.get_parameter(name)) for name in self.averages]
            self._move([layers.part(average) for average in self.averages.values()], weights, None)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Weights for averages, in place."""
        for name, average in self.averages.items():
            one, other = layers.part(self.model.get_parameter(name)), layers.part(average)
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)

    @torch.no_grad()
    def evaluate(self, batch: Any) -> dict[str, np.ndarray]:
        with self.fabric.autocast():
            found = self.module.evaluate(self.fabric.to_device(batch))
        return {name: value.cpu().numpy() for name, value in found.items()}

    @torch.no_grad()
    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        with self.fabric.autocast():
            found = self.module.predict(self.fabric.to_device(batch))
        return {name: value.cpu().numpy() for name, value in found.items()}

    @torch.no_grad()
    def stepper(self, batch: Any, width: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        with self.fabric.autocast():
            state = self.module.begin(self.fabric.to_device(batch), width)

        @torch.no_grad()
        def step(tokens: np.ndarray, parents: np.ndarray) -> np.ndarray:
            nonlocal state
            rows = (torch.from_numpy(a).to(self.fabric.device) for a in (tokens, parents))
            with self.fabric.autocast():
                log_probs, state = self.module.advance(state, *rows)
            if self.sharded:  # a search that another process ended sooner, by the last bit, would wait for ever
                torch.distributed.broadcast(log_probs, 0)
            return log_probs.cpu().numpy()

        return step

    def state(self) -> State:
        averages = {name: layers.whole(average) for name, average in self.averages.items()}
        return State(layers.get_weights(self.model), optimizers.get_state(self.optimizer, self.model), averages)

    def load(self, state: State) -> None:
        layers.set_weights(self.model, state.model)
        optimizers.set_state(self.optimizer, self.model, state.optimizer)
        known = start_of_averages(state, self.averages)
        for name, average in self.averages.items():
            layers.fill(average, known[name])

    def fit_stock(self, stock: Stock) -> None:
        run = stock.run.trainer
        self.task.optimizer = self.optimizer.optimizer
        self.task.fabric = None  # a module belongs to Fabric or to a Trainer
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            precision=PRECISION[run.precision],
            max_epochs=run.max_epochs - stock.at.epoch,
            gradient_clip_val=run.clip_norm,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[_StockCallback(stock)],
            default_root_dir=stock.folder.path,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        with stock.signals:
            trainer.fit(self.task, datamodule=_StockData(stock))


class _StockData(lightning.LightningDataModule):
    """The plan's batches of the epoch at hand."""

    def __init__(self, stock: Stock) -> None:
        super().__init__()
        self.stock = stock

    def train_dataloader(self) -> Any:
        train, at = self.stock.train, self.stock.at
        batches = train.plan.epoch(at.epoch)
        return loaders.loader(train.collator, batches, at.epoch, self.stock.run.trainer.workers)


class _StockCallback(lightning.Callback):
    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.loss = float("nan")

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, index: int) -> None:
        self.stock.batch_begin()

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, index: int) -> None:
        self.loss = float(outputs["loss"])
        trainer.should_stop |= self.stock.batch_end(self.loss)

    def on_train_epoch_end(self, trainer: Any, task: Any) -> None:
        trainer.should_stop |= self.stock.epoch_end(self.loss)
        task.train()
