"""The steps of a TPU, without one: ``python -m tests.workers.tpu JOB PRECISION MODEL...``, a JSON object a model."""

from __future__ import annotations

import dataclasses
import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from tests.twins import cases, components
from tests.twins.content.base import Arrays
from toolkit.data.batch import rows
from toolkit.data.split import Learned
from toolkit.optimizers.adamw.spec import AdamW
from toolkit.training.spec import Trainer
from toolkit.training.tf import TensorFlowEngine as Engine

STEPS = 2
Steps = list[tuple[float, float]]  # loss and norm of the gradient
LAYERS = ("layers", "encoder_layers", "decoder_layers")  # one of a kind compiles as many do


def case_of(model: str) -> cases.Case:
    fields = {f.name for f in dataclasses.fields(components.specs("models")[model])}
    return cases.Case(model, "", dropout=0.2, changed={"models": {name: 1 for name in LAYERS if name in fields}})


def engine_of(case: cases.Case, precision: Any, link: Any = None, **trainer: Any) -> Engine:
    specs = {"model": case.spec("models"), "features": case.spec("features"), "task": case.spec("tasks")}
    trained = Trainer(precision=precision, ema_decay=0.9, **trainer)
    columns = case.columns()
    dataset = SimpleNamespace(columns={column.role: type(column) for column in columns})
    optimizer = AdamW(weight_decay=0.1)
    run: Any = SimpleNamespace(trainer=trained, optimizer=optimizer, seed=3, dataset=dataset, tokenizer=None, **specs)
    return Engine(run, Learned(None, None, *case.sizes(), case.state()), link)


def xla(model: str, precision: str) -> dict[str, Any]:
    """The step of a replica as XLA compiles it against the step as it is."""
    case = case_of(model)
    found: list[Any] = []
    batch = tensors(case.batch())
    for compiled in (False, True):
        engine = engine_of(case, precision)
        step = tf.function(engine._replica_step, autograph=False, jit_compile=compiled)
        steps = []
        for i in range(STEPS):
            engine.set_step(1e-3, i)
            steps.append(tuple(float(x) for x in step(batch)))
        found += [engine, steps]
    return compared(*found)


def parts(model: str, precision: str) -> dict[str, Any]:
    """Two replicas that are given their rows from outside, as those of a TPU, against one device that is given all."""
    case = case_of(model)
    whole = tensors(case.batch())
    batches = [whole, rows(whole, 0, 3)]  # two rows for each, and then three, which do not divide
    if "partners" in whole:  # mixup has no place on several devices
        batches = [b | {"shares": tf.ones_like(b["shares"]), "partners": tf.range(len(b["labels"]))} for b in batches]
    # the replicas first: beside an earlier engine of one device their collectives did not pair
    link = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    both, steps = trained(engine_of(case, precision, link, strategy="tpu", devices=2, static_shapes=True), batches)
    measured = {name: whole[name] for name in case.fields("evaluation")}
    evaluated = both.evaluate(measured)
    alone, expected = trained(engine_of(case, precision, tf.distribute.OneDeviceStrategy("CPU:0")), batches)
    for name, values in alone.evaluate(measured).items():
        np.testing.assert_allclose(evaluated[name], values, rtol=1e-5, err_msg=name)
    return compared(alone, expected, both, steps) | {"traces": both._step.experimental_get_tracing_count()}


def trained(engine: Engine, batches: list[Any]) -> tuple[Engine, Steps]:
    return engine, [engine.train_step([batches[i % 2]], 1e-3, i) for i in range(2 * STEPS)]


def tensors(batch: Any) -> Any:
    return {name: tf.constant(values) for name, values in batch.items()}


def compared(one: Engine, ours: Steps, other: Engine, theirs: Steps) -> dict[str, Any]:
    """The greatest relative differences of losses and gradient norms, and of what the engines hold."""
    mine, its = held(one), held(other)
    far = {name: float(np.abs(its[name] - a).max() / max(np.abs(a).max(), 1e-30)) for name, a in mine.items()}
    worst = max(far, key=lambda name: far[name])
    return {"steps": float(np.abs(np.array(theirs) / ours - 1).max()), "held": far[worst], "name": worst}


def held(engine: Engine) -> Arrays:
    state = engine.state()
    return {**state.model, **state.optimizer, **{f"average of {name}": array for name, array in state.ema.items()}}


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    job, precision, *models = sys.argv[1:]
    for model in models:
        print(json.dumps({"model": model} | {"xla": xla, "parts": parts}[job](model, precision)), flush=True)
