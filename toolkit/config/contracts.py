"""Protocols of the components of a run: the attributes and methods that the toolkit uses of each spec.

The contracts of datasets, models and tasks are their base classes: :class:`toolkit.data.source.Source`,
:class:`toolkit.models.spec.Model`, :class:`toolkit.tasks.spec.Task`. The others need no base class:
:func:`toolkit.config.spec.spec` supplies ``check`` and ``check_run`` where a spec has none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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


class Features(Component, Protocol):
    """Input of the model, computed from audio or an image; see ``toolkit/data/columns`` for what each column asks."""

    @property
    def column(self) -> str:
        """Kind of column that these are features of."""
        ...

    def learn(self, examples: Iterable[Any], folder: Path) -> None:
        """Write the statistics of the training split into ``folder``."""
        ...

    def load(self, folder: Path) -> dict[str, Any]:
        """Read what :meth:`learn` wrote."""
        ...


class Tokenizer(Component, Protocol):
    """Mapping from text to token ids."""

    @property
    def column(self) -> str:
        """Kind of column that this tokenizes."""
        ...

    @property
    def joint(self) -> bool:
        """Tell whether the texts of both columns share one vocabulary; otherwise each column has its own."""
        ...

    def learn(self, texts: Iterable[str], folder: Path) -> None:
        """Write the vocabulary of the training split into ``folder``."""
        ...

    def load(self, folder: Path) -> Any:
        """Read what :meth:`learn` wrote."""
        ...


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


class Launcher(Component, Protocol):
    """Machine or cluster that runs the jobs of a sweep."""

    @property
    def jobs(self) -> int:
        """Jobs that run at the same time."""
        ...


BASES = {  # group -> base class of its specs, by name: config imports nothing above it
    "dataset": "toolkit.data.source.Source",
    "model": "toolkit.models.spec.Model",
    "task": "toolkit.tasks.spec.Task",
    "trainer": "toolkit.training.spec.Trainer",
}
PROTOCOLS: Mapping[str, type] = {
    "features": Features,
    "tokenizer": Tokenizer,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "launcher": Launcher,
}


def breach(group: str, kind: type) -> str:
    """Say in a few words how a spec class breaks the contract of its group; empty if it does not."""
    if group in BASES:
        bases = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
        return "" if BASES[group] in bases else f"is not a subclass of {BASES[group]}"
    if group not in PROTOCOLS:
        return ""
    protocol = PROTOCOLS[group]
    fields = {field.name for field in dataclasses.fields(kind)}
    members = {name for base in (protocol, Component) for name in vars(base) if not name.startswith("_")}
    missing = sorted(members - fields - set(dir(kind)))
    return f"lacks {', '.join(missing)}, expected the members of {__name__}.{protocol.__name__}" if missing else ""
