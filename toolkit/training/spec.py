"""How a model is trained: one spec for the neutral loop, its two engines and the stock loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from toolkit.config.spec import option, spec
from toolkit.errors import ConfigError

# backend -> how it can train on several devices of one machine, and of several machines; the first is what auto means
# (docs/scaling.md)
STRATEGIES = {
    "torch": (("ddp", "fsdp"), ("ddp", "fsdp")),
    "tf": (("mirrored", "tpu"), ("multi_worker",)),
}


@spec
class Trainer:
    """Length of the training, batches, precision, checkpoints and the log."""

    loop: Literal["neutral", "stock"] = option(
        "neutral",
        "neutral: the toolkit's one loop, the same for both backends; stock: Lightning Trainer or Keras fit, with "
        "their callbacks and loggers and without a resume in the middle of an epoch",
    )
    max_epochs: int = option(100, "passes over the training split", ge=1)
    max_steps: int | None = option(None, "stop after so many optimizer steps, if that comes first", ge=1)
    batch_budget: float | None = option(
        60.0,
        "largest size of a batch, padding included: of speech in seconds, of translation in tokens of the longer side, "
        "of anything else in examples; null: no bound",
        gt=0,
    )
    batch_examples: int = option(64, "largest number of examples in a batch", ge=1)
    static_shapes: bool = option(
        False,
        "batches take few shapes, for compilers that make a program for each: lengths are padded up to the edges of a "
        "geometric series, and the number of examples follows from the edge",
    )
    accumulate: int = option(1, "batches whose gradients are averaged for one optimizer step", ge=1)
    clip_norm: float | None = option(5.0, "largest global L2 norm of the gradient; null: no clipping", gt=0)
    ema_decay: float | None = option(
        None,
        "measure and predict with an exponential moving average of the trained weights: after each step it keeps this "
        "share of itself and takes the rest of the new weights (Polyak & Juditsky 1992); null: the weights themselves",
        gt=0,
        lt=1,
    )
    precision: Literal["64", "32", "bf16", "16"] = option(
        "32",
        "arithmetic of the model; bf16, 16: mixed, weights and loss stay in float32; 16 (float16) scales the loss and "
        "leaves out the steps in which that was too much",
    )
    devices: int = option(
        1,
        "devices of a machine that share each batch: GPUs, or where there is none processes (torch) or logical devices "
        "(tf) of the CPU; with strategy=tpu all cores of the TPU",
        ge=1,
    )
    nodes: int = option(1, "machines, each with so many devices; something else starts the run on each of them", ge=1)
    strategy: Literal["auto", "ddp", "fsdp", "mirrored", "multi_worker", "tpu"] = option(
        "auto",
        "how devices share the work; auto: ddp (torch), mirrored (tf, one machine), multi_worker (tf, several); fsdp "
        "(torch): weights, gradients and moments are shared too; tpu (tf): the cores of a TPU",
    )
    checkpoint_every: int = option(500, "optimizer steps from one checkpoint to the next", ge=1)
    keep: int = option(2, "checkpoints kept beside the best one", ge=1)
    validate_every: int = option(5, "epochs from one validation to the next", ge=1)
    validate_steps: int | None = option(
        None,
        "optimizer steps from one validation to the next, instead of epochs: for data of which an epoch is long",
        ge=1,
    )
    patience: int | None = option(None, "validations without a new best before the run stops; null: never", ge=1)
    workers: int = option(0, "loader processes (torch) or parallel calls (tf); 0: none, but tf prefetches", ge=0)
    log_every: int = option(10, "optimizer steps from one row of the training log to the next", ge=1)
    log_examples: bool = option(True, "keep the ids of every step's examples in examples.jsonl")
    show: int = option(3, "references and hypotheses shown at each validation", ge=0)

    @property
    def shares(self) -> int:
        """Devices in all: so many parts each batch is cut into."""
        return self.devices * self.nodes

    @property
    def multiple(self) -> int:
        """What the number of examples of a batch is to be a multiple of."""
        return self.shares if self.strategy == "tpu" else 1

    def sharing(self, backend: str) -> str:
        """Return the strategy of :data:`STRATEGIES` by which the devices of a run share its batches."""
        return STRATEGIES[backend][self.nodes > 1][0] if self.strategy == "auto" else self.strategy

    def processes(self, backend: str) -> int:
        """Return the number of processes of a run: one a device with ddp and fsdp, one a machine with multi_worker."""
        several = {"ddp": self.shares, "fsdp": self.shares, "multi_worker": self.nodes}
        return several.get(self.sharing(backend), 1)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.loop == "stock" and self.accumulate > 1:
            yield "accumulate", f"found {self.accumulate}, expected 1 with loop=stock; loop=neutral accumulates"
        if self.loop == "stock" and self.validate_steps:
            yield "validate_steps", "found with loop=stock, which validates after epochs; loop=neutral has it"
        if self.loop == "stock" and self.precision == "16":
            yield "loop", "found stock with precision=16, expected neutral, whose scale of the loss a checkpoint holds"
        if self.loop == "stock" and self.shares > 1:
            yield "loop", f"found stock with {self.shares} devices, expected neutral, which cuts the plan's batches"
        if self.strategy == "tpu":
            yield from self._check_tpu()

    def _check_tpu(self) -> Iterator[tuple[str, str]]:
        if self.loop == "stock":
            yield "loop", "found stock with strategy=tpu, expected neutral"
        if not self.static_shapes:
            yield "static_shapes", "found false with strategy=tpu, expected true: every shape is compiled for itself"
        if self.precision in ("64", "16"):
            yield "precision", f"found {self.precision} with strategy=tpu, expected bf16 or 32"
        if self.nodes > 1:
            yield (
                "nodes",
                f"found {self.nodes} with strategy=tpu, expected 1: one process drives all machines of a slice, and "
                "devices counts the cores of all",
            )


def check_gpus(devices: int, gpus: int) -> None:
    """Refuse more devices than there are GPUs, where there are any: the rest would not be as fast.

    Raises:
        ConfigError: saying so.
    """
    if 0 < gpus < devices:
        raise ConfigError(f"trainer.devices: found {devices}, expected at most {gpus}, the GPUs of this machine")
