"""TensorFlow twins that are wrong on purpose, each in one way that Keras's own parts or habits would bring about.

``python -m tests.certify.mismatches FOLDER torch`` records the right twin in float64, and with ``tf NAME...`` wrong
ones; with ``float32`` after the backend the float32 trainings, of ``IN_FLOAT32`` only. With the name of a training it
is a worker of ``toolkit certify`` with the mismatch that the environment has in ``MISMATCH``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from toolkit.certify import worker
from toolkit.config import process


def adam_epsilon() -> Any:
    """Added before the bias correction, as Keras does."""
    from toolkit.optimizers.adamw.tf import AdamW

    right = AdamW._scalars

    def wrong(self: Any, lr: Any, dtype: str) -> Any:
        import tensorflow as tf

        return right(self, lr, dtype) | {"eps": tf.cast(self.spec.eps, dtype)}

    return mock.patch.object(AdamW, "_scalars", wrong)


def norm_epsilon() -> Any:
    """Keras's default."""
    return mock.patch("toolkit.layers.spec.NORM_EPSILON", 1e-3)


def norm_momentum() -> Any:
    """Keras's default, 0.99 of the old."""
    return mock.patch("toolkit.layers.spec.BATCH_NORM_MOMENTUM", 0.01)


def padding() -> Any:
    """All at the end, as ``same`` pads where the stride is 2."""
    import tensorflow as tf

    from toolkit.layers.basic.tf import Conv2d

    def wrong(self: Any, x: Any) -> Any:
        around = [0, sum(self.around)]
        return tf.nn.conv2d(tf.pad(x, [[0, 0], around, around, [0, 0]]), self.kernel, self.strides, "VALID")

    return mock.patch.object(Conv2d, "call", wrong)


def schedule() -> Any:
    """One step ahead, as a counter that is raised before it is read."""
    from toolkit.schedules.cosine.spec import Cosine

    right = Cosine.factor
    return mock.patch.object(Cosine, "factor", lambda self, step, total: right(self, step + 1, total))


def clipping() -> Any:
    """Of each part of the sum. It stands for clipping in each replica before the all-reduce, for one device has none:
    accumulation sums over batches what replicas sum over themselves."""
    from toolkit.optimizers import tf as optimizers
    from toolkit.training import tf as trainer

    def wrong(self: Any, batch: Any, count: Any) -> Any:
        loss, gradients = self.gradients(batch, count)
        clipped, _ = optimizers.clip(gradients, self.trainer.clip_norm)
        for total, gradient in zip(self.sums, clipped, strict=True):
            total.assign_add(gradient)
        return loss

    return mock.patch.object(trainer.TensorFlowEngine, "_replica_add", wrong)


def decay() -> Any:
    """Of biases and scales too."""
    return mock.patch("toolkit.optimizers.tf.decays", lambda shape: True)


def moments() -> Any:
    """Not taken from a checkpoint; a training that nothing interrupts does not show it."""
    return mock.patch("toolkit.optimizers.tf.set_state", lambda optimizer, slots, state: None)


def none() -> Any:
    return contextlib.nullcontext()


# mismatch -> how the first place where the twins part begins
PLACES: dict[Callable[[], Any], str] = {
    none: "",
    moments: "",
    adam_epsilon: "step 1, weight blocks.0.conv.weight: ",
    norm_epsilon: "step 1, intermediate blocks.0: ",
    norm_momentum: "step 1, running statistic blocks.0.batch_norm.running_mean: ",
    padding: "step 1, intermediate blocks.0: ",
    schedule: "step 1, learning rate: ",
    clipping: "step 1, gradient norm: ",
    decay: "step 1, weight blocks.0.batch_norm.weight: ",
}
NAMES = {mismatch.__name__: mismatch for mismatch in PLACES}
IN_FLOAT32 = {"none": False, "norm_epsilon": True}  # mismatch -> the losses show it in float32


def recorded_in_float32(backend: str) -> list[str]:
    """The float32 trainings of a framework with one thread, from the initial weights."""
    trainings = worker.TRAININGS.items()
    narrow = [(name, t) for name, t in trainings if t.backend == backend and t.precision == "32" and not t.after]
    return [name for name, training in narrow if training.threads == 1]


def main(arguments: Sequence[str]) -> None:
    folder, what = Path(arguments[0]), arguments[1]
    if arguments[2:] == ["float32"]:
        process.prepare(what)
        for name in IN_FLOAT32 if what == "tf" else ("none",):
            for training in recorded_in_float32(what):
                with NAMES[name]() if what == "tf" else none():
                    worker.work(folder, training, ahead=None, into=f"{name}.{training}" if what == "tf" else None)
    elif what == "torch":  # both of these record to the end, whether anyone reads or not
        process.prepare("torch")
        worker.work(folder, "torch64", ahead=None)
    elif what == "tf":
        process.prepare("tf")
        for name in arguments[2:]:
            with NAMES[name]():
                worker.work(folder, "tf64", ahead=None, into=name)
    else:
        backend = worker.TRAININGS[what].backend
        process.prepare(backend)
        with NAMES[os.environ["MISMATCH"]]() if backend == "tf" else none():
            worker.work(folder, what)


if __name__ == "__main__":
    main(sys.argv[1:])
