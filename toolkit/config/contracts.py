"""Protocols of the components of a run: the attributes and methods that the toolkit uses of each spec.

A component needs no base class. :func:`toolkit.config.spec.spec` supplies ``check`` and ``check_run`` where a spec has
none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from toolkit.config.schema import Run

Problems = Iterator[tuple[str, str]]  # of (field, message)


class Component(Protocol):
    """A spec that a config names in ``_target_``."""

    def check(self) -> Problems:
        """Yield the conflicts between fields of this spec."""
        ...

    def check_run(self, run: Run) -> Problems:
        """Yield the conflicts between fields of this spec and other components of the run.

        Every component of ``run`` has passed its own ``check``.
        """
        ...


class Dataset(Component, Protocol):
    """Source of the examples."""

    domains: tuple[str, ...]

    @property
    def split(self) -> Literal["train", "validation", "test"] | None: ...
    @property
    def on_bad(self) -> Literal["refuse", "drop"]: ...
    @property
    def streaming(self) -> bool: ...
    @property
    def pool(self) -> int: ...
    @property
    def lanes(self) -> int: ...
    @property
    def sample(self) -> int: ...
    @property
    def kept(self) -> tuple[str, ...]: ...


class Features(Component, Protocol):
    """Input of the model, computed from the raw content of an example."""

    def learn(self, examples: Iterable[Any], folder: Path) -> None:
        """Write the statistics of the training split into ``folder``."""
        ...

    def load(self, folder: Path) -> dict[str, Any]:
        """Read what :meth:`learn` wrote."""
        ...


class Tokenizer(Component, Protocol):
    """Mapping from text to token ids."""

    def learn(self, texts: Iterable[str], folder: Path) -> None:
        """Write the vocabulary of the training split into ``folder``."""
        ...

    def load(self, folder: Path) -> Any:
        """Read what :meth:`learn` wrote."""
        ...


class Model(Component, Protocol):
    """Network."""

    def parameters(self, inputs: Any, outputs: int) -> dict[str, Any]:
        """Return the parameters of both twins by canonical name."""
        ...


class Task(Component, Protocol):
    """Loss, decoding and metrics."""

    fields: Any

    @property
    def monitor(self) -> str:
        """Metric of the validation split that selects the best checkpoint."""
        ...

    def amounts(self, batch: Any) -> Any: ...
    def evaluate(
        self, engine: Any, batch: Any, tokenizer: Any, final: bool
    ) -> Iterator[tuple[int, dict[str, Any]]]: ...
    def measure(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]: ...
    def detail(self, row: Mapping[str, Any]) -> dict[str, Any]: ...
    def files(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]: ...
    def table(self, rows: Sequence[Mapping[str, Any]]) -> str: ...
    def signatures(self) -> dict[str, str]: ...


class Optimizer(Component, Protocol):
    """Update rule."""

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def moments(self) -> tuple[str, ...]:
        """Names of the arrays kept for each parameter."""
        ...


class Schedule(Component, Protocol):
    """Factor on the learning rate; called by the neutral loop, so it has no twins."""

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor at the 0-based optimizer step ``step`` of ``total_steps``."""
        ...


# --- what some components have, and others do not ---


@runtime_checkable
class Sharded(Protocol):
    """A dataset that can be streamed."""

    def shards(self, split: str, cache: Path) -> Any: ...


@runtime_checkable
class Sampled(Protocol):
    """A component of audio."""

    @property
    def sample_rate(self) -> int: ...


@runtime_checkable
class Bilingual(Protocol):
    """A tokenizer of two languages: one vocabulary for both, or one for each."""

    @property
    def joint(self) -> bool: ...


@runtime_checkable
class DropsOut(Protocol):
    """A model with dropout."""

    @property
    def native_dropout(self) -> bool: ...
