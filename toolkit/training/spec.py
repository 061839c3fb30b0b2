"""The trainer's spec: one for the neutral loop, its two engines and the stock loops."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Literal

from toolkit.config.spec import option, spec
from toolkit.errors import ConfigError

if TYPE_CHECKING:
    from toolkit.config.schema import Run

# backend -> strategies for several devices of one machine, and of several machines; auto takes the first
# (docs/guide/devices.md)
STRATEGIES = {
    "torch": (("ddp", "fsdp"), ("ddp", "fsdp")),
    "tf": (("mirrored", "tpu"), ("multi_worker",)),
}


@spec
class Trainer:
    """Length of the training, batches, precision, checkpoints and the log."""

    loop: Literal["neutral", "stock"] = option(
        "neutral",
        "neutral: the toolkit's own loop, the same for both backends; stock: Lightning Trainer or Keras fit, with "
        "their callbacks and loggers, but without resuming in the middle of an epoch",
    )
    max_epochs: int = option(100, "passes over the training split", ge=1)
    max_steps: int | None = option(None, "stop after N optimizer steps, if that comes before max_epochs", ge=1)
    batch_budget: float | None = option(
        60.0,
        "largest size of a batch, padding included: speech in seconds, translation in tokens of the longer side, "
        "anything else in examples; null: no limit",
        gt=0,
    )
    batch_examples: int = option(64, "largest number of examples in a batch", ge=1)
    static_shapes: bool = option(
        False,
        "give batches few shapes, for compilers that make a program for each: lengths are padded to a geometric "
        "series, and the number of examples follows from the padded length",
    )
    accumulate: int = option(1, "batches whose gradients are averaged for one optimizer step", ge=1)
    clip_norm: float | None = option(5.0, "largest global L2 norm of the gradient; null: no clipping", gt=0)
    ema_decay: float | None = option(
        None,
        "decay of an exponential moving average of the trained weights, which evaluation and prediction use (Polyak & "
        "Juditsky 1992); null: no averaging",
        gt=0,
        lt=1,
    )
    precision: Literal["64", "32", "bf16", "16"] = option(
        "32",
        "floating point of the model; bf16, 16: mixed precision, weights and loss stay in float32; 16 (float16) scales "
        "the loss and skips the steps whose gradients overflow",
    )
    devices: int = option(
        1,
        "devices of a machine that share each batch: GPUs, or, without any, processes (torch) or logical devices (tf) "
        "of the CPU; with strategy=tpu all cores of the TPU",
        ge=1,
    )
    nodes: int = option(1, "machines, each with trainer.devices devices; the run must be started on each of them", ge=1)
    strategy: Literal["auto", "ddp", "fsdp", "mirrored", "multi_worker", "tpu"] = option(
        "auto",
        "how devices share the work; auto: ddp (torch), mirrored (tf, one machine), multi_worker (tf, several); fsdp "
        "(torch): weights, gradients and moments are sharded too; tpu (tf): the cores of a TPU",
    )
    checkpoint_every: int = option(500, "checkpoint interval, in optimizer steps", ge=1)
    keep: int = option(2, "checkpoints kept beside the best one", ge=1)
    validate_every: int = option(5, "validation interval, in epochs", ge=1)
    validate_steps: int | None = option(
        None,
        "validation interval in optimizer steps, instead of validate_every: for data with long epochs",
        ge=1,
    )
    patience: int | None = option(None, "validations without a new best before the run stops; null: never", ge=1)
    workers: int = option(0, "loader processes (torch) or parallel calls (tf); 0: none, but tf prefetches", ge=0)
    log_every: int = option(10, "interval of the training log, in optimizer steps", ge=1)
    log_examples: bool = option(True, "log the ids of every step's examples in examples.jsonl")
    show: int = option(3, "examples shown at each validation, reference and hypothesis", ge=0)

    @property
    def total_devices(self) -> int:
        """Devices of all machines."""
        return self.devices * self.nodes

    @property
    def multiple(self) -> int:
        """Divisor of the number of examples of a batch, as far as possible."""
        return self.total_devices if self.strategy == "tpu" else 1

    def sharing(self, backend: str) -> str:
        """Return the strategy of :data:`STRATEGIES` by which the devices of a run share its batches."""
        return STRATEGIES[backend][self.nodes > 1][0] if self.strategy == "auto" else self.strategy

    def processes(self, backend: str) -> int:
        """Return the number of processes: one per device with ddp and fsdp, one per machine with multi_worker."""
        several = {"ddp": self.total_devices, "fsdp": self.total_devices, "multi_worker": self.nodes}
        return several.get(self.sharing(backend), 1)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.loop == "stock" and self.accumulate > 1:
            yield (
                "accumulate",
                f"{self.accumulate} is not supported with trainer.loop=stock; set trainer.accumulate=1 or "
                "trainer.loop=neutral",
            )
        if self.loop == "stock" and self.validate_steps:
            yield (
                "validate_steps",
                f"{self.validate_steps} is not supported with trainer.loop=stock, which validates after epochs; "
                "set trainer.loop=neutral",
            )
        if self.loop == "stock" and self.precision == "16":
            yield (
                "loop",
                "stock is not supported with trainer.precision=16, because its checkpoints lack the loss scale; set "
                "trainer.loop=neutral",
            )
        if self.loop == "stock" and self.total_devices > 1:
            yield (
                "loop",
                f"stock is not supported with {self.total_devices} devices, because it does not split batches; set "
                "trainer.loop=neutral",
            )
        if self.strategy == "tpu":
            yield from self._check_tpu()

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Yield the conflicts of the trainer with the backend and the dataset."""
        yield from self._check_strategy(run.backend)
        if run.dataset.streaming:
            yield from self._check_streaming(run)

    def _check_strategy(self, backend: str) -> Iterator[tuple[str, str]]:
        supported = list(dict.fromkeys(chain(*STRATEGIES[backend])))
        fitting = STRATEGIES[backend][self.nodes > 1]
        if self.strategy not in ("auto", *supported):
            message = f"{self.strategy} is not supported with backend={backend}; set {' or '.join(supported)}"
            yield "strategy", message
        elif self.strategy not in ("auto", "tpu", *fitting):
            message = f"{self.strategy} is not supported with trainer.nodes={self.nodes}; set {' or '.join(fitting)}"
            yield "strategy", message

    def _check_streaming(self, run: Run) -> Iterator[tuple[str, str]]:
        """Yield the settings that streaming does not support: steps and lengths are not known beforehand."""
        with_streaming = "is not supported with dataset.streaming=true"
        if self.max_steps is None and not run.evaluate:
            yield "max_steps", "null is not supported with dataset.streaming=true; set trainer.max_steps=N"
        if self.loop == "stock":
            yield "loop", f"stock {with_streaming}; set trainer.loop=neutral"
        if self.accumulate > max(1, run.dataset.pool // self.batch_examples):
            yield (
                "accumulate",
                f"found {self.accumulate}, expected at most dataset.pool / trainer.batch_examples, "
                f"{run.dataset.pool} / {self.batch_examples}: with dataset.streaming=true a step takes its batches "
                "from one pool",
            )
        if self.strategy == "tpu":
            yield "strategy", f"tpu {with_streaming}, whose shapes are not static; set dataset.streaming=false"
        elif self.static_shapes:
            yield "static_shapes", f"true {with_streaming}; set trainer.static_shapes=false"
        if self.workers:
            yield "workers", f"{self.workers} {with_streaming}, whose threads prefetch; set trainer.workers=0"

    def _check_tpu(self) -> Iterator[tuple[str, str]]:
        if self.loop == "stock":
            yield "loop", "stock is not supported with trainer.strategy=tpu; set trainer.loop=neutral"
        if not self.static_shapes:
            yield (
                "static_shapes",
                "false is not supported with trainer.strategy=tpu, which compiles every shape; set "
                "trainer.static_shapes=true",
            )
        if self.precision in ("64", "16"):
            yield (
                "precision",
                f"{self.precision} is not supported with trainer.strategy=tpu; set trainer.precision=bf16 or 32",
            )
        if self.nodes > 1:
            yield (
                "nodes",
                f"{self.nodes} is not supported with trainer.strategy=tpu; set trainer.nodes=1, and trainer.devices to "
                "the cores of all machines",
            )


def check_gpus(devices: int, gpus: int) -> None:
    """Check that every device is a GPU, if the machine has any: a CPU would hold up the others.

    Raises:
        ConfigError: there are fewer GPUs than devices.
    """
    if 0 < gpus < devices:
        raise ConfigError(f"trainer.devices: found {devices}, expected at most {gpus}, the GPUs of this machine")
