"""An engine that forwards every call to another engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.batch import Collate
from toolkit.decoding.autoregressive import Advance
from toolkit.training.engine import Engine, StepResult
from toolkit.training.progress import State

if TYPE_CHECKING:
    from toolkit.training.stock.session import StockSession


class EngineWrapper:
    """Engine around another engine; a subclass overrides the calls that it watches.

    Args:
        engine: computes.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def model(self) -> Any:
        return self.engine.model

    @property
    def rank(self) -> int:
        return self.engine.rank

    @property
    def ranks(self) -> int:
        return self.engine.ranks

    @property
    def sharded(self) -> bool:
        return self.engine.sharded

    def total(self, values: np.ndarray) -> np.ndarray:
        return self.engine.total(values)

    def batches(self, collator: Collate, batches: list[np.ndarray], epoch: int) -> Iterator[Any]:
        return self.engine.batches(collator, batches, epoch)

    def train_step(self, batches: list[Any], lr: float, batches_done: int, scale: float = 1.0) -> StepResult:
        return self.engine.train_step(batches, lr, batches_done, scale)

    def set_step(self, lr: float, batches_done: int) -> None:
        self.engine.set_step(lr, batches_done)

    def update_averages(self) -> None:
        self.engine.update_averages()

    def with_averages(self) -> AbstractContextManager[None]:
        return self.engine.with_averages()

    def fit_stock(self, stock: StockSession) -> None:
        self.engine.fit_stock(stock)

    def evaluate(self, batch: Any) -> dict[str, np.ndarray]:
        return self.engine.evaluate(batch)

    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        return self.engine.predict(batch)

    def stepper(self, batch: Any, width: int) -> Advance:
        return self.engine.stepper(batch, width)

    def state(self) -> State:
        return self.engine.state()

    def load(self, state: State) -> None:
        self.engine.load(state)

    def load_weights(self, state: State) -> None:
        self.engine.load_weights(state)
