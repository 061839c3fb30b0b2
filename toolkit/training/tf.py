"""The TensorFlow engine, ``strategy.run`` under ``tf.function``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from toolkit.config.build import build
from toolkit.data.batch import Collate
from toolkit.data.columns.column import columns_of
from toolkit.data.loaders import tf as loaders
from toolkit.data.split import Learned, batch_fields
from toolkit.decoding.autoregressive import Advance
from toolkit.layers import parameters as weights
from toolkit.layers import tf as layers
from toolkit.optimizers import tf as optimizers
from toolkit.tasks.tf import Task
from toolkit.training.engine import Engine, NonFinite, StepResult, averages_of
from toolkit.training.progress import State
from toolkit.training.stock import tf as stock_loop
from toolkit.training.stock.session import StockSession
from toolkit.training.strategies.tf import devices_of, strategy_of

if TYPE_CHECKING:
    from toolkit.config.schema import Run

POLICY = {"64": "float64", "32": "float32", "bf16": "mixed_bfloat16", "16": "mixed_float16"}


def connect(run: Run) -> tf.distribute.Strategy:
    """Take the devices of the run, and join its processes on other machines; wait for the first.

    Raises:
        ConfigError: there are fewer GPUs than devices, or not the TPU that is asked for.
    """
    return devices_of(run.trainer)


def build_engine(run: Run, learned: Learned, link: tf.distribute.Strategy | None = None) -> Engine:
    """Build the engine of a run.

    Args:
        run: the run's specs.
        learned: tokenizer and state of the features.
        link: of :func:`connect`, if that was called before.
    """
    return TensorFlowEngine(run, learned, link)


def make_task(run: Run, learned: Learned) -> Task:
    """Build the run's task, a Keras layer, with its initial weights. Call it in the strategy's scope."""
    keras.config.set_floatx("float64" if run.trainer.precision == "64" else "float32")
    keras.config.set_dtype_policy(POLICY[run.trainer.precision])
    model = build(run.model, "tf", learned.inputs, learned.outputs)
    layers.set_weights(model, weights.initial(run.model.parameters(learned.inputs, learned.outputs), run.seed))
    layers.bind(model, run.seed)
    features = run.features and build(run.features, "tf", learned.features)
    return build(run.task, "tf", features, model)


class TensorFlowEngine:
    """One process of a TensorFlow run (see :class:`toolkit.training.engine.Engine`).

    :meth:`gradients` and the methods named ``_replica_...`` run on every device, inside the compiled functions, which
    are made when they are first called.

    Args:
        run, learned, link: see :func:`build_engine`.
    """

    sharded = False

    def __init__(self, run: Run, learned: Learned, link: tf.distribute.Strategy | None = None) -> None:
        tf.config.experimental.enable_tensor_float_32_execution(False)  # float32 must mean float32 on a GPU too
        self.trainer, self.columns = run.trainer, columns_of(run)
        self.fields = batch_fields(self.columns, "training")
        self.strategy = strategy_of(link or connect(run), run.trainer, run.task.amounts)
        self.rank, self.ranks = self.strategy.rank, self.strategy.ranks
        with self.strategy.link.scope():
            self.task = make_task(run, learned)
            self.model = self.task.model
            self.slots = layers.canonical_variables(self.model)
            self.variables = self.model.trainable_variables
            self.optimizer = build(run.optimizer, "tf", self.slots, self.strategy.total_devices > 1)
            if self.strategy.total_devices > 1:
                layers.share(self.model)
            self.scale = tf.Variable(1.0, trainable=False) if run.trainer.precision == "16" else None
            self.averages = Averages(self.slots, run.trainer.ema_decay)
            self.sums = self._make_sums() if run.trainer.accumulate > 1 else []

    def _make_sums(self) -> list[tf.Variable]:
        """Make the sums of accumulated gradients, which each device has for itself."""
        own = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": tf.VariableAggregation.SUM}
        options = own if self.strategy.total_devices > 1 else {}
        return [tf.Variable(tf.zeros_like(v), trainable=False, **options) for v in self.variables]

    def total(self, values: np.ndarray) -> np.ndarray:
        return self.strategy.total(values)

    def batches(self, collator: Collate, batches: list[np.ndarray], epoch: int) -> Iterator[Any]:
        return loaders.loader(collator, batches, collator.fields, epoch, self.trainer.workers)

    # --- training ----------------------------------------------------------------------------------------------------

    def set_step(self, lr: float, batches_done: int) -> None:
        self.optimizer.learning_rate.assign(lr)
        layers.set_step(self.model, batches_done)

    def train_step(self, batches: list[Any], lr: float, batches_done: int, scale: float = 1.0) -> StepResult:
        if self.scale is not None:
            self.scale.assign(scale)
        try:
            result = (
                self._accumulate(batches, lr, batches_done) if self.sums else self._one(batches[0], lr, batches_done)
            )
        except tf.errors.InvalidArgumentError as error:
            if "not finite" not in str(error):
                raise
            for s in self.sums:
                s.assign(tf.zeros_like(s))
            raise NonFinite from error
        # a program of a TPU cannot raise: there the update is done by now, but nobody saves it
        if self.strategy.static and not np.isfinite(result).all():
            raise NonFinite
        return result

    def _one(self, batch: Any, lr: float, batches_done: int) -> StepResult:
        self.set_step(lr, batches_done)
        loss, norm = self._step(self.strategy.cut(batch))
        return StepResult(float(loss), float(norm))

    def _accumulate(self, batches: list[Any], lr: float, batches_done: int) -> StepResult:
        loss = 0.0
        for i, batch in enumerate(batches):
            self.set_step(lr, batches_done + i)
            loss += float(self._add(self.strategy.cut(batch), len(batches)))
        return StepResult(loss, float(self._apply(loss)))

    @cached_property
    def _step(self) -> Callable[..., Any]:
        return self.strategy.compile(self._replica_step, self.strategy.signature(self.fields))

    @cached_property
    def _add(self) -> Callable[..., Any]:
        count = tf.TensorSpec([], tf.int32)
        return self.strategy.compile(self._replica_add, self.strategy.signature(self.fields), count)

    @cached_property
    def _apply(self) -> Callable[..., Any]:
        return self.strategy.compile(self._replica_apply, tf.TensorSpec([], tf.float64))

    def _replica_step(self, batch: Any) -> tuple[Any, Any]:
        loss, gradients = self.gradients(batch)
        return loss, self._replica_update(gradients, loss)

    def _replica_add(self, batch: Any, count: Any) -> Any:
        loss, gradients = self.gradients(batch, count)
        for total, gradient in zip(self.sums, gradients, strict=True):
            total.assign_add(gradient)
        return loss

    def _replica_apply(self, loss: Any) -> Any:
        norm = self._replica_update([s.read_value() for s in self.sums], loss)
        with tf.control_dependencies([norm]):
            for s in self.sums:
                s.assign(tf.zeros_like(s))
        return norm

    def gradients(self, batch: Any, count: Any = 1) -> tuple[Any, list[Any]]:
        """On a device: return the loss of a batch over ``count``, and this device's part of its gradients."""
        batch, share = self.strategy.own_rows(self.model, batch)
        with tf.GradientTape() as tape:
            loss = self.task.loss(batch)
            loss = loss / tf.cast(count, loss.dtype)
            if share is not None:
                loss *= tf.cast(share, loss.dtype)
            scaled = loss if self.scale is None else loss * self.scale
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(scaled, self.variables)]
        if self.scale is not None:
            gradients = [g / self.scale for g in gradients]
        return self.strategy.sum(loss), gradients

    def _replica_update(self, gradients: list[Any], loss: Any) -> Any:
        gradients = self.strategy.sum(gradients)
        gradients, norm = optimizers.clip(gradients, self.trainer.clip_norm)
        with tf.control_dependencies([tf.debugging.assert_all_finite(x, "not finite") for x in (loss, norm)]):
            self.optimizer.apply(gradients, self.variables)
        self.averages.update()
        return norm

    @cached_property
    def _average(self) -> Callable[..., Any]:
        return self.strategy.compile(self.averages.update)

    def update_averages(self) -> None:
        self._average()

    def with_averages(self) -> contextlib.AbstractContextManager[None]:
        return self.averages.in_place()

    def fit_stock(self, stock: StockSession) -> None:
        stock_loop.fit(self, stock)

    # --- evaluation --------------------------------------------------------------------------------------------------

    @cached_property
    def _evaluate(self) -> Callable[..., Any]:
        signature = None if self.strategy.static else loaders.signature(batch_fields(self.columns, "evaluation"))
        return self.strategy.compile_evaluation(self.task.evaluate, signature)

    @cached_property
    def _predict(self) -> Callable[..., Any]:
        return self.strategy.compile_evaluation(self.task.predict, None if self.strategy.static else self._inputs)

    def evaluate(self, batch: Any) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self._evaluate(batch).items()}

    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self._predict(batch).items()}

    @cached_property
    def _inputs(self) -> dict[str, tf.TensorSpec]:
        return loaders.signature(batch_fields(self.columns, "prediction"))

    @cached_property
    def _search(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return compile_search(self.task, self._inputs)

    def stepper(self, batch: Any, width: int) -> Advance:
        begin, advance = self._search
        state = begin({name: batch[name] for name in self._inputs}, width)

        def step(tokens: np.ndarray, parents: np.ndarray) -> np.ndarray:
            nonlocal state
            log_probs, state = advance(state, tf.constant(tokens), tf.constant(parents))
            return log_probs.numpy()

        return step

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def state(self) -> State:
        averages = self.averages.arrays()
        return State(layers.get_weights(self.model), optimizers.get_state(self.optimizer, self.slots), averages)

    def load(self, state: State) -> None:
        self.load_weights(state)
        optimizers.set_state(self.optimizer, self.slots, state.optimizer)

    def load_weights(self, state: State) -> None:
        layers.set_weights(self.model, state.model)
        self.averages.load(state)


def compile_search(task: Any, inputs: dict[str, tf.TensorSpec]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compile ``begin`` and ``advance`` of an autoregressive task, once for batches of all shapes.

    Args:
        task: the twin.
        inputs: shapes and types of a batch for prediction.
    """
    begin = tf.function(task.begin, input_signature=[inputs, tf.TensorSpec([], tf.int32)], autograph=False)
    begun = begin.get_concrete_function().structured_outputs
    # an axis that is empty before the first step grows
    state = tf.nest.map_structure(lambda x: tf.TensorSpec([size or None for size in x.shape], x.dtype), begun)
    rows = tf.TensorSpec([None], tf.int32)
    return begin, tf.function(task.advance, input_signature=[state, rows, rows], autograph=False)


class Averages:
    """The exponential moving average of the trained weights; empty without a decay. Make it in the strategy's scope.

    Args:
        slots: the model's variables.
        decay: weight of the old average.
    """

    def __init__(self, slots: Sequence[layers.Slot], decay: float | None) -> None:
        self.decay = decay or 0.0
        self.pairs = [
            (slot, tf.Variable(slot.variable.value, trainable=False, aggregation=layers.FIRST))
            for slot in (slots if decay else ())
            if slot.variable.trainable
        ]

    def update(self) -> None:
        """On a device: move the averages towards the weights."""
        for slot, average in self.pairs:
            rest = tf.constant(1.0 - self.decay, average.dtype)
            average.assign_add(rest * (slot.variable - average))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model its averages inside the ``with`` block."""
        kept = [slot.variable.numpy() for slot, _ in self.pairs]
        for slot, average in self.pairs:
            slot.variable.assign(average)
        try:
            yield
        finally:
            for (slot, _), value in zip(self.pairs, kept, strict=True):
                slot.variable.assign(value)

    def arrays(self) -> dict[str, np.ndarray]:
        """Copy the averages, by canonical name and in canonical layout."""
        return {slot.name: np.array(slot.to_canonical(average.numpy()), order="C") for slot, average in self.pairs}

    def load(self, state: State) -> None:
        """Overwrite the averages with those of a state."""
        arrays = averages_of(state, [slot.name for slot, _ in self.pairs])
        for slot, average in self.pairs:
            average.assign(np.ascontiguousarray(slot.to_keras(arrays[slot.name])))
