"""The torch engine, on Lightning Fabric."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from toolkit.config.build import build
from toolkit.data.batch import Collate
from toolkit.data.loaders import torch as loaders
from toolkit.data.split import Learned
from toolkit.decoding.autoregressive import Advance
from toolkit.layers import parameters as weights
from toolkit.layers import torch as layers
from toolkit.optimizers import torch as optimizers
from toolkit.tasks.torch import Task
from toolkit.training import spinning
from toolkit.training.engine import Engine, NonFinite, StepResult, averages_of
from toolkit.training.progress import State
from toolkit.training.stock import torch as stock_loop
from toolkit.training.stock.session import StockSession
from toolkit.training.strategies.torch import fabric_of, strategy_of

if TYPE_CHECKING:
    from toolkit.config.schema import Run


def connect(run: Run) -> lightning.Fabric:
    """Join the other processes of the run, if it has any; wait for rank 0.

    Raises:
        ConfigError: there are fewer GPUs than devices.
    """
    fabric = fabric_of(run)
    fabric.launch()
    if run.trainer.total_devices > 1:
        atexit.register(torch.distributed.destroy_process_group)
    return fabric


def build_engine(run: Run, learned: Learned, link: lightning.Fabric | None = None) -> Engine:
    """Build the engine of a run.

    Args:
        run: the run's specs.
        learned: tokenizer and state of the features.
        link: of :func:`connect`, if that was called before.
    """
    return TorchEngine(run, learned, link)


def make_task(run: Run, learned: Learned) -> Task:
    """Build the run's task, a ``LightningModule``, with its initial weights."""
    model = build(run.model, "torch", learned.inputs, learned.outputs)
    layers.set_weights(model, weights.initial(run.model.parameters(learned.inputs, learned.outputs), run.seed))
    layers.bind(model, run.seed)
    features = run.features and build(run.features, "torch", learned.features)
    return build(run.task, "torch", features, model)


class TorchEngine:
    """One process of a torch run (see :class:`toolkit.training.engine.Engine`).

    Args:
        run, learned, link: see :func:`build_engine`.
    """

    def __init__(self, run: Run, learned: Learned, link: lightning.Fabric | None = None) -> None:
        _use_exact_arithmetic(run.trainer.precision)
        threads = torch.get_num_threads()
        spinning.watch(threads, lambda: torch.ones(threads << 16).add_(1))
        self.trainer = run.trainer
        self.fabric = link or connect(run)
        self.rank, self.ranks = self.fabric.global_rank, self.fabric.world_size
        self.task = make_task(run, learned)
        self.model = self.task.model
        self.strategy = strategy_of(run.trainer, self.fabric, self.model)
        self.sharded = self.strategy.sharded
        self.module = self._set_up_module()
        optimizer = build(run.optimizer, "torch", list(self.model.named_parameters()))  # of the parts, if sharded
        self.optimizer: Any = self.fabric.setup_optimizers(optimizer)
        self.averages = Averages(self.model, run.trainer.ema_decay)

    def _set_up_module(self) -> Any:
        module = self.fabric.setup_module(self.task)
        answering = ("begin", "advance") if self.task.spec.autoregressive else ("predict",)
        for method in ("loss", "evaluate", *answering):
            module.mark_forward_method(method)
        return module

    def total(self, values: np.ndarray) -> np.ndarray:
        return self.strategy.total(values)

    def batches(self, collator: Collate, batches: list[np.ndarray], epoch: int) -> Iterator[Any]:
        return iter(loaders.loader(collator, batches, epoch, self.trainer.workers))

    # --- training ----------------------------------------------------------------------------------------------------

    def set_step(self, lr: float, batches_done: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        layers.set_step(self.model, batches_done)

    def train_step(self, batches: list[Any], lr: float, batches_done: int, scale: float = 1.0) -> StepResult:
        loss = 0.0
        for i, batch in enumerate(batches):
            self.set_step(lr, batches_done + i)
            loss += self._add_gradients(batch, len(batches), scale, last=i + 1 == len(batches))
        loss = float(self.total(np.array([loss]))[0])
        if scale != 1:
            gradients = [layers.part(p.grad) for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, self.strategy.unscale(scale))
        norm = self._clip()
        if not np.isfinite([loss, norm]).all():
            self.optimizer.zero_grad()
            raise NonFinite
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.update_averages()
        return StepResult(loss, norm)

    def _add_gradients(self, batch: Any, count: int, scale: float, last: bool) -> float:
        """Add the gradients of one of ``count`` batches; return this process's part of its loss, over ``count``."""
        with self.fabric.autocast():  # Fabric itself does so only in ``forward``, and in modules that it has wrapped
            loss = self.strategy.loss(self.module, batch) / count
        self.strategy.backward(self.module, loss, scale, last)
        return float(loss.detach())

    def _clip(self) -> float:
        """Clip the gradients; return their norm before."""
        limit = self.trainer.clip_norm or float("inf")
        norm: Any = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return float(norm.full_tensor() if self.sharded else norm)

    def update_averages(self) -> None:
        self.averages.update()

    def with_averages(self) -> contextlib.AbstractContextManager[None]:
        return self.averages.in_place()

    def fit_stock(self, stock: StockSession) -> None:
        stock_loop.fit(self, stock)

    # --- evaluation --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, batch: Any) -> dict[str, np.ndarray]:
        with self.fabric.autocast():
            outputs = self.module.evaluate(self.fabric.to_device(batch))
        return {name: value.cpu().numpy() for name, value in outputs.items()}

    @torch.no_grad()
    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        with self.fabric.autocast():
            outputs = self.module.predict(self.fabric.to_device(batch))
        return {name: value.cpu().numpy() for name, value in outputs.items()}

    @torch.no_grad()
    def stepper(self, batch: Any, width: int) -> Advance:
        with self.fabric.autocast():
            state = self.module.begin(self.fabric.to_device(batch), width)

        @torch.no_grad()
        def step(tokens: np.ndarray, parents: np.ndarray) -> np.ndarray:
            nonlocal state
            rows = (torch.from_numpy(a).to(self.fabric.device) for a in (tokens, parents))
            with self.fabric.autocast():
                log_probs, state = self.module.advance(state, *rows)
            if self.sharded:  # a search that ends earlier in one process, by the last bit, would block the others
                torch.distributed.broadcast(log_probs, 0)
            return log_probs.cpu().numpy()

        return step

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def state(self) -> State:
        averages = self.averages.arrays()
        return State(layers.get_weights(self.model), optimizers.get_state(self.optimizer, self.model), averages)

    def load(self, state: State) -> None:
        self.load_weights(state)
        optimizers.set_state(self.optimizer, self.model, state.optimizer)

    def load_weights(self, state: State) -> None:
        layers.set_weights(self.model, state.model)
        self.averages.load(state)


class Averages:
    """The exponential moving average of the trained weights; empty without a decay.

    Args:
        model: whose weights are averaged.
        decay: weight of the old average.
    """

    def __init__(self, model: Any, decay: float | None) -> None:
        self.model = model
        trained = model.named_parameters() if decay else ()
        self.values = {name: p.detach().clone() for name, p in trained if p.requires_grad}
        self._update = get_ema_multi_avg_fn(decay or 0.0)

    def update(self) -> None:
        """Move the averages towards the weights."""
        if self.values:
            current = [layers.part(self.model.get_parameter(name)) for name in self.values]
            self._update([layers.part(average) for average in self.values.values()], current, None)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model its averages inside the ``with`` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self.values.items():
            weight, average = layers.part(self.model.get_parameter(name)), layers.part(average)
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def arrays(self) -> dict[str, np.ndarray]:
        """Copy the averages, by canonical name."""
        return {name: layers.whole(average) for name, average in self.values.items()}

    def load(self, state: State) -> None:
        """Overwrite the averages with those of a state."""
        arrays = averages_of(state, self.values)
        for name, average in self.values.items():
            layers.fill(average, arrays[name])


def _use_exact_arithmetic(precision: str) -> None:
    """Make float32 mean float32 on a GPU too, as on the other backend, and set torch's default type.

    Fabric computes ``64-true`` in float64, but returns everything, the loss too, in the default type.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.set_default_dtype(torch.float64 if precision == "64" else torch.float32)
