"""How the devices of a torch run share its batches: one device, data parallelism, and sharded data parallelism."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import lightning
import numpy as np
import torch
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.fabric.strategies import DDPStrategy

from toolkit.layers import torch as layers
from toolkit.training.spec import Trainer, check_gpus

if TYPE_CHECKING:
    from toolkit.config.schema import Run

PRECISION: dict[str, Any] = {"64": "64-true", "32": "32-true", "bf16": "bf16-mixed"}

# How long a process waits for the others: rank 0 may decode a large dataset first. A process that dies is noticed at
# once, by its closed connection or by the launcher
WAIT = timedelta(days=1)


class Strategy(Protocol):
    """Parts of a training step that differ between one device and several."""

    @property
    def sharded(self) -> bool:
        """Tell if each process holds a part of the weights."""

    def loss(self, module: Any, batch: Any) -> torch.Tensor:
        """Return this process's part of a batch's loss; the parts of all processes add up to it."""

    def backward(self, module: Any, loss: torch.Tensor, scale: float, last: bool) -> None:
        """Add the gradients of a loss.

        Args:
            module: as Fabric set it up.
            loss: of :meth:`loss`.
            scale: loss scale.
            last: it is the last batch of its step.
        """

    def unscale(self, scale: float) -> float:
        """Return the factor that takes the loss scale out of the gradients."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum over all processes."""


class OneDevice:
    """One process on one device: a GPU if there is one."""

    sharded = False

    def __init__(self, fabric: lightning.Fabric) -> None:
        self.fabric = fabric

    def loss(self, module: Any, batch: Any) -> torch.Tensor:
        return module.loss(self.fabric.to_device(batch))

    def backward(self, module: Any, loss: torch.Tensor, scale: float, last: bool) -> None:
        self.fabric.backward(loss * scale if scale != 1 else loss)

    def unscale(self, scale: float) -> float:
        return 1 / scale

    def total(self, values: np.ndarray) -> np.ndarray:
        return values


class DataParallel:
    """A process a device, each with all weights and its own rows of every batch (DDP).

    DDP takes the mean of the gradients over the processes, but their sum is needed: the number of processes is a
    factor of the loss. With a loss scale the factor comes after the backward pass, which must overflow where that of
    one device does.
    """

    sharded = False

    def __init__(self, fabric: lightning.Fabric, model: Any) -> None:
        self.fabric, self.model = fabric, model

    def loss(self, module: Any, batch: Any) -> torch.Tensor:
        share = float(batch["share"])
        layers.set_rows(self.model, int(batch["before"]), share > 0)
        return module.loss(self.fabric.to_device(batch)) * share

    def backward(self, module: Any, loss: torch.Tensor, scale: float, last: bool) -> None:
        with contextlib.nullcontext() if last else self.fabric.no_backward_sync(module):
            self.fabric.backward(loss * (scale if scale != 1 else self.fabric.world_size))

    def unscale(self, scale: float) -> float:
        return self.fabric.world_size / scale

    def total(self, values: np.ndarray) -> np.ndarray:
        summed = torch.from_numpy(values.astype(np.float64)).to(self.fabric.device)
        torch.distributed.all_reduce(summed)
        return summed.cpu().numpy()


class ShardedDataParallel(DataParallel):
    """As :class:`DataParallel`, but each process holds a part of the weights, the gradients and the moments (FSDP).

    Gradients are summed after every batch, because whole ones would not fit.
    """

    sharded = True

    def backward(self, module: Any, loss: torch.Tensor, scale: float, last: bool) -> None:
        super().backward(module, loss, scale, last=True)


def strategy_of(trainer: Trainer, fabric: lightning.Fabric, model: Any) -> Strategy:
    """Choose the strategy of a run.

    Args:
        trainer: the trainer's spec.
        fabric: of :func:`connect`.
        model: the run's.
    """
    if fabric.world_size == 1:
        return OneDevice(fabric)
    kind = ShardedDataParallel if trainer.sharing("torch") == "fsdp" else DataParallel
    return kind(fabric, model)


# --- Fabric -----------------------------------------------------------------------------------------------------------


def fabric_of(run: Run) -> lightning.Fabric:
    """Make the Fabric of a run; it is not launched yet.

    Raises:
        ConfigError: there are fewer GPUs than devices.
    """
    trainer: Trainer = run.trainer
    options = _several_devices(trainer) if trainer.total_devices > 1 else _one_device()
    if trainer.precision in ("bf16", "16"):
        options["plugins"] = [_Mixed(trainer.precision), *options["plugins"]]
    else:
        options["precision"] = PRECISION[trainer.precision]
    return lightning.Fabric(**options)


def _one_device() -> dict[str, Any]:
    """Return the options for one device. Fabric must not read the variables of Slurm, which may count more tasks."""
    return {"accelerator": "auto", "devices": 1, "plugins": [LightningEnvironment()]}


def _several_devices(trainer: Trainer) -> dict[str, Any]:
    gpus = torch.cuda.device_count()
    check_gpus(trainer.devices, gpus)
    if trainer.sharing("torch") == "fsdp":
        strategy: DDPStrategy = _Sharded(timeout=WAIT)
    else:
        strategy = DDPStrategy(timeout=WAIT, broadcast_buffers=False)  # all processes compute the same statistics
    where = {"accelerator": "cuda" if gpus else "cpu", "devices": trainer.devices, "num_nodes": trainer.nodes}
    return {**where, "strategy": strategy, "plugins": [_environment()]}


def _environment() -> ClusterEnvironment:
    """Return what started the processes of the run, by the rule of ``processes.own_rank``.

    Lightning's own guess depends on more, such as the name of the Slurm job.
    """
    if "WORLD_SIZE" not in os.environ:
        return SLURMEnvironment()
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()


class _Mixed(MixedPrecision):
    """Autocast only: inputs, waveforms above all, stay as they are, and the loop scales the loss."""

    def __init__(self, precision: str) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        scaler = torch.amp.GradScaler(device, enabled=False) if precision == "16" else None
        super().__init__("16-mixed" if precision == "16" else "bf16-mixed", device, scaler)

    def convert_input(self, data: Any) -> Any:
        return data


class _Sharded(DDPStrategy):
    """Fabric's side of :class:`ShardedDataParallel`.

    Fabric's own ``ModelParallelStrategy`` refuses float64, and its groups time out after half an hour.
    """

    def module_to_device(self, module: Any) -> None:
        """Do nothing: sharding moves the module, block by block."""

    def setup_module(self, module: Any) -> Any:
        layers.shard(module.model, self.root_device.type)
        return module.to(self.root_device)  # the buffers of the features
