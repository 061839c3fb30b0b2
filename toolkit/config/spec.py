"""Specs: frozen, documented, checked descriptions of components.

A component is described by a spec, a frozen dataclass that imports no framework. Every field is declared with
:func:`option`, which carries its documentation and its bounds. Conditions between fields of a spec are in its method
``check``, and conditions between a spec and other components of the run in ``check_run``. Only classes marked by
:func:`spec` can be built from a config.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from toolkit.config.schema import Run

T = TypeVar("T")


def option(
    default: Any = dataclasses.MISSING,
    doc: str = "",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """Declare a field of a spec.

    Args:
        default: value of a config that sets none; without a default, the config must set it (``???`` in YAML).
        doc: its meaning, with the unit.
        ge, gt, le, lt: inclusive and exclusive bounds; for a sequence they hold for each element.
    """
    metadata = {"doc": doc, "ge": ge, "gt": gt, "le": le, "lt": lt}
    if isinstance(default, (list, dict, set)):
        raise TypeError("a spec is immutable: give a tuple or None as default")
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, field_specifiers=(option,))
def spec(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass that a config may name in ``_target_``.

    ``cls`` may have ``check()`` and ``check_run(run)``, see :class:`toolkit.config.contracts.Component`; without them
    it gets ones that find no problem.

    Raises:
        TypeError: a field has no documentation.
    """
    for hook, default in (("check", _check), ("check_run", _check_run)):
        if not any(hook in vars(parent) for parent in cls.__mro__):
            setattr(cls, hook, default)
    made = dataclasses.dataclass(frozen=True)(cls)
    for field in dataclasses.fields(made):  # type: ignore[arg-type]
        if not field.metadata.get("doc"):
            raise TypeError(f"{cls.__module__}.{cls.__qualname__}.{field.name} has no doc")
    made.__toolkit_spec__ = made  # type: ignore[attr-defined]
    return made


def _check(self: Any) -> Iterator[tuple[str, str]]:
    yield from ()


def _check_run(self: Any, run: Run) -> Iterator[tuple[str, str]]:
    yield from ()


def is_spec(obj: Any) -> bool:
    """Tell whether ``obj`` is a class that was itself, not only its parent, marked by :func:`spec`."""
    return isinstance(obj, type) and vars(obj).get("__toolkit_spec__") is obj


def as_data(value: Any) -> Any:
    """Return a field's value as plain nested data for YAML or JSON: specs as mappings, tuples as lists."""
    if is_spec(type(value)):
        return {field.name: as_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [as_data(item) for item in value] if isinstance(value, (tuple, list)) else value


def problems(instance: Any) -> Iterator[tuple[str, str]]:
    """Yield ``(field, message)`` for every value of a spec that is out of bounds or contradicts another."""
    broken = False
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if is_spec(type(value)):
            for inner, message in problems(value):
                broken = True
                yield f"{field.name}.{inner}", message
            continue
        for message in out_of_bounds(value, field.metadata):
            broken = True
            yield field.name, message
    if not broken:
        yield from instance.check()


def out_of_bounds(value: Any, bounds: Any) -> Iterator[str]:
    """Yield a message for each of a field's bounds that ``value`` breaks; ``bounds`` is the field's metadata."""
    values = value if isinstance(value, (tuple, list)) else [value]
    for item in values:
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            continue
        if isinstance(item, float) and not math.isfinite(item):
            yield f"found {item}, expected a finite number"
            continue
        for name, sign, holds in (
            ("ge", "at least", lambda a, b: a >= b),
            ("gt", "more than", lambda a, b: a > b),
            ("le", "at most", lambda a, b: a <= b),
            ("lt", "less than", lambda a, b: a < b),
        ):
            bound = bounds.get(name)
            if bound is not None and not holds(item, bound):
                yield f"found {item}, expected {sign} {bound}"
