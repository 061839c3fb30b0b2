"""The TensorFlow engine, ``strategy.run`` under ``tf.function``; and the same parts under the stock Keras ``fit``."""

from __future__ import annotations

import contextlib
import glob
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from toolkit.config.build import build
from toolkit.data.batch import PART, Collate, rows, rows_of
from toolkit.data.columns.column import columns_of
from toolkit.data.loaders import tf as loaders
from toolkit.data.split import Learned, batch_fields
from toolkit.errors import ConfigError
from toolkit.layers import parameters as weights
from toolkit.layers import tf as layers
from toolkit.layers.devices import tf as devices
from toolkit.optimizers import tf as optimizers
from toolkit.runs.checkpoint import State

from .loop import NonFinite, Stock, start_of_averages
from .spec import check_gpus, processes, sharing

POLICY = {"64": "float64", "32": "float32", "bf16": "mixed_bfloat16", "16": "mixed_float16"}


def make_task(run: Any, learned: Learned) -> Any:
    """The run's task, a ``keras.Model``, with its initial weights. Call it under the strategy's scope."""
    keras.config.set_floatx("float64" if run.trainer.precision == "64" else "float32")
    keras.config.set_dtype_policy(POLICY[run.trainer.precision])
    model = build(run.model, "tf", learned.inputs, learned.outputs)
    layers.set_weights(model, weights.initial(run.model.parameters(learned.inputs, learned.outputs), run.seed))
    layers.bind(model, run.seed)
    features = run.features and build(run.features, "tf", learned.features)
    return build(run.task, "tf", features, model)


def connect(run: Any) -> tf.distribute.Strategy:
    """The first GPU where there is one, else the CPU; with several devices so many GPUs, else parts of the CPU; with
    several machines joins the processes on the others, and waits for the first.

    Raises:
        ConfigError: there are GPUs, but not so many; or there is to be a TPU (see :func:`_tpu`).
    """
    if sharing("tf", run.trainer) == "tpu":
        return _tpu(run.trainer.devices)
    gpus, devices = tf.config.list_physical_devices("GPU"), run.trainer.devices
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if run.trainer.shares == 1:
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    check_gpus(devices, len(gpus))
    if gpus:
        tf.config.set_visible_devices(gpus[:devices], "GPU")
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    if sharing("tf", run.trainer) == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.MirroredStrategy([f"/{'gpu' if gpus else 'cpu'}:{i}" for i in range(devices)])


TPU_FILES = ("/dev/accel*", "/dev/vfio/[0-9]*")  # of one in this machine: up to v4, and since
ANSWER = 10.0  # seconds that what knows of a named TPU has to answer: off Google's cloud it may never do so


def _tpu(cores: int) -> tf.distribute.Strategy:
    """The TPU that ``TPU_NAME`` names, else the one of this machine.

    Raises:
        ConfigError: there is none, or it has another number of cores.
    """
    name = os.environ.get("TPU_NAME", "local")
    mend = (
        "run it on a TPU VM that has tensorflow-tpu (docs/scaling.md), or without one by trainer=default or "
        "trainer=mirrored"
    )
    if name == "local" and not any(map(glob.glob, TPU_FILES)):
        looked = " nor ".join(TPU_FILES)
        raise ConfigError(f"trainer.strategy: found tpu, but no TPU: neither TPU_NAME nor {looked}; {mend}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, OSError, RuntimeError, ValueError, ImportError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(f"trainer.strategy: found tpu, but no TPU answers as {name!r}: {why}; {mend}") from error
    finally:
        socket.setdefaulttimeout(before)
    if (found := strategy.num_replicas_in_sync) != cores:
        raise ConfigError(f"trainer.devices: found {cores}, expected {found}, the cores of the TPU {name!r}")
    return strategy


class Engine:
    """One process of a TensorFlow run (see ``loop.Engine``).

    Args:
        run: the run's specs.
        learned: tokenizer and state of the features.
        link: of :func:`connect`, where that was called before.
    """

    def __init__(self, run: Any, learned: Learned, link: tf.distribute.Strategy | None = None) -> None:
        self.trainer = run.trainer
        tf.config.experimental.enable_tensor_float_32_execution(False)  # float32 is to mean float32 on a GPU too
        self.strategy = link or connect(run)
        self.parts = self.strategy.num_replicas_in_sync
        self.static = sharing("tf", run.trainer) == "tpu"  # a trace for each shape of a batch, none of which varies
        self.rank, self.ranks, self.sharded = 0, processes("tf", run.trainer), False
        if self.ranks > 1:
            self.rank = int(self.strategy.cluster_resolver.task_id)
        with self.strategy.scope():
            self.task = make_task(run, learned)
            self.model = self.task.model
            self.slots = layers.canonical_variables(self.model)
            self.variables = self.model.trainable_variables
            self.optimizer = build(run.optimizer, "tf", self.slots)
            if self.parts > 1:
                layers.share(self.model)
                self.optimizer.summed = True
            self.scale = tf.Variable(1.0, trainable=False) if run.trainer.precision == "16" else None
            many = run.trainer.accumulate > 1
            self.averages = [
                (slot, tf.Variable(slot.variable.value, trainable=False, aggregation=layers.FIRST))
                for slot in (self.slots if run.trainer.ema_decay else ())
                if slot.variable.trainable
            ]
            # each device adds up gradients of its own
            own = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": tf.VariableAggregation.SUM}
            own = own if self.parts > 1 else {}
            self.sums = [tf.Variable(tf.zeros_like(v), trainable=False, **own) for v in self.variables] if many else []
        columns = columns_of(run)
        self.fields = batch_fields(columns, "training")
        batch = None if self.static else loaders.signature(self.fields)
        labelled = None if self.static else loaders.signature(batch_fields(columns, "evaluation"))
        given = None if self.static else loaders.signature(batch_fields(columns, "prediction"))
        part = batch | loaders.signature(PART) if batch and self.ranks > 1 else batch
        self._step = self._function(self._replica_step, part)
        self._add = self._function(self._replica_add, part, tf.TensorSpec([], tf.int32))
        self._apply = self._function(self._replica_apply, tf.TensorSpec([], tf.float64))
        self._average = self._function(self._replica_average)
        # a batch is evaluated by one device alone; of a TPU by all of them alike, for they have one program
        alone = self.parts == 1 or self.static

        def by_one(replica: Callable[..., Any], signature: Any) -> Any:
            return self._function(replica, signature) if alone else tf.function(replica, input_signature=[signature])

        self._evaluate = by_one(self.task.evaluate, labelled)
        if self.ranks > 1:
            self._total = self._function(self._replica_total, tf.TensorSpec([None], tf.float64))
        if run.task.autoregressive:
            self._begin = tf.function(self.task.begin, reduce_retracing=True)
            self._next = tf.function(self.task.advance, reduce_retracing=True)
        else:
            self._predict = by_one(self.task.predict, given)

    def _function(self, replica: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            found = self.strategy.run(replica, args=args)
            if self.parts == 1:
                return found
            return tf.nest.map_structure(lambda x: self.strategy.experimental_local_results(x)[0], found)

        return tf.function(run, input_signature=None if None in signature else list(signature), jit_compile=False)

    def batches(self, collator: Collate, batches: list[np.ndarray], epoch: int) -> Iterator[Any]:
        return loaders.loader(collator, batches, collator.fields, epoch, self.trainer.workers)

    def set_step(self, lr: float, position: int) -> None:
        self.optimizer.learning_rate.assign(lr)
        layers.set_step(self.model, position)

    def train_step(self, batches: list[Any], lr: float, position: int, scale: float = 1.0) -> tuple[float, float]:
        if self.scale is not None:
            self.scale.assign(scale)
        try:
            if not self.sums:
                self.set_step(lr, position)
                loss, norm = (float(x) for x in self._step(self._cut(batches[0])))
                return self._finite(loss, norm)
            total = 0.0
            for i, batch in enumerate(batches):
                self.set_step(lr, position + i)
                total += float(self._add(self._cut(batch), len(batches)))
            return self._finite(total, float(self._apply(total)))
        except tf.errors.InvalidArgumentError as error:
            if "not finite" not in str(error):
                raise
            for s in self.sums:
                s.assign(tf.zeros_like(s))
            raise NonFinite from error

    def _finite(self, loss: float, norm: float) -> tuple[float, float]:
        """On a TPU, where a program cannot raise, this is what sees it: after the update, which nobody saves then."""
        if self.static and not np.isfinite([loss, norm]).all():
            raise NonFinite
        return loss, norm

    def average(self) -> None:
        self._average()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        kept = [slot.variable.numpy() for slot, _ in self.averages]
        for slot, average in self.averages:
            slot.variable.assign(average)
        try:
            yield
        finally:
            for (slot, _), value in zip(self.averages, kept, strict=True):
                slot.variable.assign(value)

    def evaluate(self, batch: Any) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self._evaluate(batch).items()}

    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self._predict(batch).items()}

    def stepper(self, batch: Any, width: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        state = self._begin(batch, width)

        def step(tokens: np.ndarray, parents: np.ndarray) -> np.ndarray:
            nonlocal state
            log_probs, state = self._next(state, tf.constant(tokens), tf.constant(parents))
            return log_probs.numpy()

        return step

    def state(self) -> State:
        averages = {
            slot.name: np.array(slot.to_canonical(average.numpy()), order="C") for slot, average in self.averages
        }
        return State(layers.get_weights(self.model), optimizers.get_state(self.optimizer, self.slots), averages)

    def load(self, state: State) -> None:
        layers.set_weights(self.model, state.model)
        optimizers.set_state(self.optimizer, self.slots, state.optimizer)
        known = start_of_averages(state, [slot.name for slot, _ in self.averages])
        for slot, average in self.averages:
            average.assign(np.ascontiguousarray(slot.to_keras(known[slot.name])))

    def _gradients(self, batch: Any, parts: Any = 1) -> tuple[Any, list[Any]]:
        """The loss of a batch, and this device's part of its gradients."""
        share = None
        if self.parts > 1:
            batch, share = self._own(batch)
        with tf.GradientTape() as tape:
            loss = self.task.loss(batch)
            loss = loss / tf.cast(parts, loss.dtype)
            if share is not None:
                loss *= tf.cast(share, loss.dtype)
            scaled = loss if self.scale is None else loss * self.scale
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(scaled, self.variables)]
        if self.scale is not None:
            gradients = [g / self.scale for g in gradients]
        return loss if share is None else devices.total(loss), gradients

    def _own(self, batch: Any) -> tuple[Any, Any]:
        """This device's rows of the process's batch, and their share of the loss of all processes' batch."""
        if self.static:
            part = dict(batch)
            before, share = (part.pop(name) for name in PART)
            layers.set_rows(self.model, before, share > 0)
            return part, share
        number = tf.distribute.get_replica_context().replica_id_in_sync_group % self.trainer.devices
        with tf.device("/cpu:0"):  # where the batch is: no more than its own rows go to a GPU
            batch = dict(batch)
            before, whole = (batch.pop(name, None) for name in PART)
            first, end = rows_of(number, self.trainer.devices, tf.shape(batch["example"])[0])
            present = end > first
            first, end = tf.where(present, first, 0), tf.where(present, end, 1)
            amounts = tf.cast(self.task.spec.amounts(batch), tf.float64)
            share = tf.reduce_sum(amounts[first:end]) / tf.reduce_sum(amounts) * tf.cast(present, tf.float64)
            part, first = rows(batch, first, end), tf.cast(first, tf.int64)
            if whole is not None:
                share, first = share * whole, first + before
        layers.set_rows(self.model, first, share > 0)
        return part, share

    def _cut(self, batch: Any) -> Any:
        """What a step takes: the batch, or for a TPU the parts of its cores, which are of one shape.

        Where the rows do not divide, every core is given all of them, and those of the first count.
        """
        if not self.static or self.parts == 1:
            return batch
        count, amounts = len(batch["example"]), np.asarray(self.task.spec.amounts(batch), np.float64)
        even = count % self.parts == 0

        def part(context: Any) -> Any:
            number = context.replica_id_in_sync_group
            first, end = rows_of(number, self.parts, count) if even else (0, count)
            share = amounts[first:end].sum() / amounts.sum() if even or not number else 0.0
            told = {"before": tf.constant(first, tf.int64), "share": tf.constant(share, tf.float64)}
            return rows(batch, first, end) | told

        return self.strategy.experimental_distribute_values_from_function(part)

    def total(self, values: np.ndarray) -> np.ndarray:
        if self.ranks == 1:
            return values
        return self._total(tf.constant(values, tf.float64)).numpy()

    def _replica_total(self, values: Any) -> Any:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        one = tf.cast(number % self.trainer.devices == 0, values.dtype)  # a process has one value, not one a device
        return devices.total(one * values)

    def _update(self, gradients: list[Any], loss: Any) -> Any:
        if self.parts > 1:
            gradients = devices.total(gradients)
        gradients, norm = optimizers.clip(gradients, self.trainer.clip_norm or float("inf"))
        with tf.control_dependencies([tf.debugging.assert_all_finite(x, "not finite") for x in (loss, norm)]):
            self.optimizer.apply([tf.identity(g) for g in gradients], self.variables)
        self._replica_average()
        return norm

    def _replica_average(self) -> None:
        for slot, average in self.averages:
            rest = tf.constant(1.0 - (self.trainer.ema_decay or 0.0), average.dtype)
            average.assign_add(rest * (slot.variable - average))

    def _replica_step(self, batch: Any) -> tuple[Any, Any]:
        loss, gradients = self._gradients(batch)
        return loss, self._update(gradients, loss)

    def _replica_add(self, batch: Any, parts: Any) -> Any:
        loss, gradients = self._gradients(batch, parts)
        for total, gradient in zip(self.sums, gradients, strict=True):
            total.assign_add(gradient)
        return loss

    def _replica_apply(self, loss: Any) -> Any:
        norm = self._update([s.read_value() for s in self.sums], loss)
        with tf.control_dependencies([norm]):
            for s in self.sums:
                s.assign(tf.zeros_like(s))
        return norm

    def fit_stock(self, stock: Stock) -> None:
        run = stock.run.trainer
        model = _StockModel(self.task, run.clip_norm)
        model.compile(optimizer=self.optimizer, jit_compile=False)
        with stock.signals:
            model.fit(
                _StockData(stock),
                epochs=run.max_epochs - stock.at.epoch,
                shuffle=False,  # the plan has shuffled
                callbacks=[_StockCallback(stock)],
            )


class _StockModel(keras.Model):
    """A task under the stock ``fit``."""

    def __init__(self, task: Any, clip_norm: float | None) -> None:
        super().__init__(autocast=False)
        self.task, self.clip_norm = task, clip_norm
        self.built = True

    @property
    def metrics(self) -> list[Any]:
        """None: ``fit`` would replace the loss of :meth:`train_step` by its running mean, which is empty."""
        return []

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Train on one batch. The loss is that batch's own."""
        batch = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            loss = self.task.loss(batch)
        variables = self.trainable_variables
        gradients, _ = optimizers.clip(tape.gradient(loss, variables), self.clip_norm or float("inf"))
        self.optimizer.apply(gradients, variables)
        return {"loss": loss}


class _StockData(keras.utils.PyDataset):
    """The plan's batches of the epoch at hand."""

    def __init__(self, stock: Stock) -> None:
        super().__init__(workers=max(1, stock.run.trainer.workers))
        self.stock, self.train = stock, stock.train
        self.on_epoch_begin()

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.train.collator(self.batches[index], self.epoch)

    def on_epoch_begin(self) -> None:
        self.epoch = self.stock.at.epoch
        self.batches = self.train.plan.epoch(self.epoch)


class _StockCallback(keras.callbacks.Callback):
    def __init__(self, stock: Stock) -> None:
        super().__init__()
        self.stock = stock

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.stock.batch_begin()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training |= self.stock.batch_end(logs["loss"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training |= self.stock.epoch_end(logs["loss"])
