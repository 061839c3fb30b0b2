"""How the devices of a TensorFlow run share its batches: one device, mirrored devices, several machines, a TPU."""

from __future__ import annotations

import glob
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from toolkit.data.batch import PART, Fields, rows, rows_of
from toolkit.data.loaders import tf as loaders
from toolkit.errors import ConfigError
from toolkit.layers import tf as layers
from toolkit.layers.devices.tf import total
from toolkit.training.spec import Trainer, check_gpus

Function = Callable[..., Any]
Amounts = Callable[[Any], Any]  # of a task's spec: batch -> (batch,) weight of each row in the loss
Signature = dict[str, tf.TensorSpec]

TPU_FILES = ("/dev/accel*", "/dev/vfio/[0-9]*")  # of a TPU in this machine: up to v4, and later ones
ANSWER = 10.0  # timeout in seconds for the lookup of a named TPU: off Google's cloud it may never end
MEND = "run on a TPU VM with tensorflow-tpu (docs/guide/devices.md), or set trainer=default or trainer=mirrored"


class Strategy(Protocol):
    """Parts of a training step that differ between one device and several."""

    link: tf.distribute.Strategy
    total_devices: int  # of all machines
    rank: int
    ranks: int
    static: bool  # a program is compiled for each shape of a batch, and cannot raise

    def compile(self, replica: Function, *signature: Any) -> Function:
        """Compile a function that every device runs; it returns the result of the first device."""

    def compile_evaluation(self, function: Function, signature: Signature | None) -> Function:
        """Compile the evaluation of a batch."""

    def signature(self, fields: Fields) -> Signature | None:
        """Return shapes and types of a training batch; None: they vary, and each is traced."""

    def cut(self, batch: Any) -> Any:
        """Return what a compiled step takes for a batch of this process."""

    def own_rows(self, model: Any, batch: Any) -> tuple[Any, Any]:
        """On a device: return its rows of the batch, and their share of the loss (None: all of it)."""

    def sum(self, values: Any) -> Any:
        """On a device: sum over all devices."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum over all processes."""


class OneDevice:
    """The first GPU, or the CPU."""

    static = False

    def __init__(self, link: tf.distribute.Strategy, trainer: Trainer, amounts: Amounts) -> None:
        self.link, self.trainer, self.amounts = link, trainer, amounts
        self.total_devices = link.num_replicas_in_sync
        self.rank, self.ranks = 0, 1

    def compile(self, replica: Function, *signature: Any) -> Function:
        def run(*args: Any) -> Any:
            outputs = self.link.run(replica, args=args)
            if self.total_devices == 1:
                return outputs
            return tf.nest.map_structure(lambda x: self.link.experimental_local_results(x)[0], outputs)

        fixed = None if None in signature else list(signature)
        return tf.function(run, input_signature=fixed, autograph=False, jit_compile=False)

    def compile_evaluation(self, function: Function, signature: Signature | None) -> Function:
        return self.compile(function, signature)

    def signature(self, fields: Fields) -> Signature | None:
        return loaders.signature(fields)

    def cut(self, batch: Any) -> Any:
        return batch

    def own_rows(self, model: Any, batch: Any) -> tuple[Any, Any]:
        return batch, None

    def sum(self, values: Any) -> Any:
        return values

    def total(self, values: np.ndarray) -> np.ndarray:
        return values


class Mirrored(OneDevice):
    """The devices of one machine. Each is given the whole batch, and cuts out its own rows; one of them evaluates."""

    def compile_evaluation(self, function: Function, signature: Signature | None) -> Function:
        return tf.function(function, input_signature=[signature], autograph=False)

    def own_rows(self, model: Any, batch: Any) -> tuple[Any, Any]:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group % self.trainer.devices
        with tf.device("/cpu:0"):  # where the batch is: only its own rows go to a GPU
            batch = dict(batch)
            before, process_share = (batch.pop(name, None) for name in PART)
            first, end = rows_of(number, self.trainer.devices, tf.shape(batch["example"])[0])
            present = end > first
            first, end = tf.where(present, first, 0), tf.where(present, end, 1)
            amounts = tf.cast(self.amounts(batch), tf.float64)
            share = tf.reduce_sum(amounts[first:end]) / tf.reduce_sum(amounts) * tf.cast(present, tf.float64)
            own, first = rows(batch, first, end), tf.cast(first, tf.int64)
            if process_share is not None:
                share, first = share * process_share, first + before
        layers.set_rows(model, first, share > 0)
        return own, share

    def sum(self, values: Any) -> Any:
        return total(values)


class MultiWorker(Mirrored):
    """The devices of several machines, with a process on each, which loads its own rows of every batch."""

    def __init__(self, link: tf.distribute.Strategy, trainer: Trainer, amounts: Amounts) -> None:
        super().__init__(link, trainer, amounts)
        self.rank, self.ranks = int(link.cluster_resolver.task_id), trainer.processes("tf")
        self._total = self.compile(self._replica_total, tf.TensorSpec([None], tf.float64))

    def signature(self, fields: Fields) -> Signature | None:
        return loaders.signature(fields) | loaders.signature(PART)

    def total(self, values: np.ndarray) -> np.ndarray:
        return self._total(tf.constant(values, tf.float64)).numpy()

    def _replica_total(self, values: Any) -> Any:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        first = tf.cast(number % self.trainer.devices == 0, values.dtype)  # a value a process, not one a device
        return total(first * values)


class TPU(OneDevice):
    """The cores of a TPU. Each is given its rows from outside; all evaluate alike, because they run one program."""

    static = True

    def signature(self, fields: Fields) -> Signature | None:
        return None

    def cut(self, batch: Any) -> Any:
        """Return the rows of each core, which have one shape.

        If the rows do not divide, every core is given all of them, and those of the first count.
        """
        if self.total_devices == 1:
            return batch
        count, amounts = len(batch["example"]), np.asarray(self.amounts(batch), np.float64)
        even = count % self.total_devices == 0

        def part(context: Any) -> Any:
            number = context.replica_id_in_sync_group
            first, end = rows_of(number, self.total_devices, count) if even else (0, count)
            share = amounts[first:end].sum() / amounts.sum() if even or not number else 0.0
            place = {"before": tf.constant(first, tf.int64), "share": tf.constant(share, tf.float64)}
            return rows(batch, first, end) | place

        return self.link.experimental_distribute_values_from_function(part)

    def own_rows(self, model: Any, batch: Any) -> tuple[Any, Any]:
        if self.total_devices == 1:
            return batch, None
        own = dict(batch)
        before, share = (own.pop(name) for name in PART)
        layers.set_rows(model, before, share > 0)
        return own, share

    def sum(self, values: Any) -> Any:
        return values if self.total_devices == 1 else total(values)


def strategy_of(link: tf.distribute.Strategy, trainer: Trainer, amounts: Amounts) -> Strategy:
    """Choose the strategy of a run.

    Args:
        link: of :func:`devices_of`.
        trainer: the trainer's spec.
        amounts: of the task's spec.
    """
    sharing = trainer.sharing("tf")
    if sharing == "tpu":
        return TPU(link, trainer, amounts)
    if link.num_replicas_in_sync == 1:
        return OneDevice(link, trainer, amounts)
    kind = MultiWorker if sharing == "multi_worker" else Mirrored
    return kind(link, trainer, amounts)


# --- devices ----------------------------------------------------------------------------------------------------------


def devices_of(trainer: Trainer) -> tf.distribute.Strategy:
    """Take the devices of a run: GPUs if there are any, else logical devices of the CPU.

    With several machines it joins the processes on the others, and waits for the first.

    Raises:
        ConfigError: there are fewer GPUs than devices, or not the TPU that is asked for.
    """
    sharing = trainer.sharing("tf")
    if sharing == "tpu":
        return _tpu(trainer.devices)
    gpus, devices = tf.config.list_physical_devices("GPU"), trainer.devices
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if trainer.total_devices == 1:
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    check_gpus(devices, len(gpus))
    try:
        if gpus:
            tf.config.set_visible_devices(gpus[:devices], "GPU")
        else:
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    except RuntimeError as error:  # TensorFlow fixes them when it first computes
        raise ConfigError(
            f"trainer.devices: found {devices}, but this process already uses other devices; start another process"
        ) from error
    if sharing == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.MirroredStrategy([f"/{'gpu' if gpus else 'cpu'}:{i}" for i in range(devices)])


def _tpu(cores: int) -> tf.distribute.Strategy:
    """Connect to the TPU that ``TPU_NAME`` names, or else to the one of this machine.

    Raises:
        ConfigError: there is none, or it has another number of cores.
    """
    name = os.environ.get("TPU_NAME", "local")
    if name == "local" and not any(map(glob.glob, TPU_FILES)):
        looked = " nor ".join(TPU_FILES)
        raise ConfigError(
            f"trainer.strategy: found tpu, expected a TPU: TPU_NAME names none, and this machine has neither {looked}; "
            f"{MEND}"
        )
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, OSError, RuntimeError, ValueError, ImportError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(
            f"trainer.strategy: found tpu, expected a TPU: none answers as {name!r} ({why}); {MEND}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    if (count := strategy.num_replicas_in_sync) != cores:
        raise ConfigError(f"trainer.devices: found {cores}, expected {count}, the cores of the TPU {name!r}")
    return strategy
