"""The contract between the neutral training code and a framework; ``torch.py`` and ``tf.py`` implement it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from toolkit.data.batch import Collate
from toolkit.decoding.autoregressive import Advance
from toolkit.layers.spec import match
from toolkit.training.progress import State

if TYPE_CHECKING:
    from toolkit.training.stock.session import StockSession


class NonFinite(Exception):
    """The loss or the gradient of a step is not finite. The weights were not changed."""


class StepResult(NamedTuple):
    """The outcome of an optimizer step.

    Args:
        loss: mean over the batches of the step.
        gradient_norm: global L2 norm before clipping.
    """

    loss: float
    gradient_norm: float


class Engine(Protocol):
    """One process of a run: the model, its optimizer and the devices that compute.

    A batch is a dict of the framework's tensors.
    """

    @property
    def model(self) -> Any:
        """The twin; its ``spec`` describes it."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0. Every process runs the same loop."""

    @property
    def ranks(self) -> int:
        """Number of processes of the run."""

    @property
    def sharded(self) -> bool:
        """Tell if the processes share the weights: then all of them must join every forward pass and ``state()``."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum ``(n,)`` values over all processes. Every process must call it, and gets the same sum."""

    def batches(self, collator: Collate, batches: list[np.ndarray], epoch: int) -> Iterator[Any]:
        """Load batches of the plan, in their order."""

    def train_step(self, batches: list[Any], lr: float, batches_done: int, scale: float = 1.0) -> StepResult:
        """Take one optimizer step on the mean gradient of ``batches``.

        Args:
            batches: the micro-batches of the step.
            lr: learning rate.
            batches_done: batches since the start of the run; it keys the dropout masks.
            scale: loss scale during differentiation; loss and gradient norm of the result are without it.

        Raises:
            NonFinite: before the update.
        """

    def set_step(self, lr: float, batches_done: int) -> None:
        """Set the learning rate, and the number of batches that keys the dropout masks."""

    def update_averages(self) -> None:
        """Update the averaged weights after a step of a stock loop; :meth:`train_step` does it by itself."""

    def with_averages(self) -> AbstractContextManager[None]:
        """Give the model its averaged weights inside a ``with`` block, if the run has any."""

    def fit_stock(self, stock: StockSession) -> None:
        """Train with the framework's stock loop, which calls ``stock`` back."""

    def evaluate(self, batch: Any) -> dict[str, np.ndarray]:
        """Return the outputs of the task's ``evaluate`` for a batch with targets, as numpy."""

    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        """Return the outputs of the task's ``predict`` for a batch of inputs, as numpy."""

    def stepper(self, batch: Any, width: int) -> Advance:
        """Begin a search in an autoregressive task.

        Args:
            batch: its inputs.
            width: hypotheses of each example.

        Returns:
            a function that advances all hypotheses by one token. It takes ``(batch * width,)`` last tokens and
            ``(batch * width,)`` rows of the previous step that these continue, and returns log-probabilities
            ``(batch * width, vocabulary)``.
        """

    def state(self) -> State:
        """Copy weights, moments and averages. If ``sharded``, only rank 0 gets the arrays."""

    def load(self, state: State) -> None:
        """Overwrite weights, moments and averages, to train on.

        Raises:
            ValueError: names or shapes differ from the model's or the optimizer's.
        """

    def load_weights(self, state: State) -> None:
        """Overwrite weights and averages, to evaluate: the optimizer may be another one.

        Raises:
            ValueError: names or shapes differ from the model's.
        """


def averages_of(state: State, names: Iterable[str]) -> Mapping[str, np.ndarray]:
    """Return the averaged weights of a state, or its weights if it was trained without averaging.

    Args:
        state: of a checkpoint.
        names: canonical names of the averaged weights; empty if the run keeps none.

    Raises:
        ValueError: the averages belong to another model.
    """
    names = list(names)
    if names and state.ema:
        match(state.ema, {name: state.model[name].shape for name in names})
    return {name: (state.ema or state.model)[name] for name in names}
