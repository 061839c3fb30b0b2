"""Small versions of components, by the names of their fields: nothing here lists components, so a new one is small too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from toolkit import recipe_source
from toolkit.spec import is_spec, problems

# field -> value, wherever a spec has such a field with a greater default; nested specs too
FIELDS: dict[str, Any] = {
    "dim": 16,
    "layers": 2,
    "heads": 2,
    "feed_forward": 32,
    "kernel": 5,
    "units": 8,
    "subsampling_channels": 4,
    "mels": 20,
    "max_bands": 5,
    "warmup_steps": 2,
}
TRAINER = (
    "trainer.batch_budget=null",
    "trainer.batch_examples=8",
    "trainer.max_epochs=100",
    "trainer.max_steps=4",
    "trainer.validate_every=1",
    "trainer.log_every=1",
    "trainer.show=2",
    "trainer.precision=32",
)


def fields(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """``(dotted field, value)`` of all that makes a spec of this class small."""
    for field in dataclasses.fields(kind):
        default = field.default
        if is_spec(type(default)):
            yield from ((f"{field.name}.{inner}", value) for inner, value in fields(type(default)))
        elif field.name in FIELDS and (default is dataclasses.MISSING or default > FIELDS[field.name]):
            yield field.name, FIELDS[field.name]


def make(kind: type[Any], **changed: Any) -> Any:
    """A small spec of this class, with these fields changed.

    Raises:
        AssertionError: the values in ``FIELDS`` do not suit this class.
    """
    made = kind(**_nested(kind) | changed)
    assert not list(problems(made)), f"tests/tiny.py makes a bad {kind.__name__}: {list(problems(made))}"
    return made


def _nested(kind: type[Any]) -> dict[str, Any]:
    own = {name: value for name, value in fields(kind) if "." not in name}
    inner = {f.name: type(f.default) for f in dataclasses.fields(kind) if is_spec(type(f.default))}
    return own | {name: make(of) for name, of in inner.items()}


def overrides(run: Any) -> list[str]:
    """Arguments of the command line that make a run's components small and the run short."""
    groups = [group for group in recipe_source.PACKAGES if group not in ("dataset", "trainer")]
    found = [f"{g}.{name}={value}" for g in groups for name, value in fields(type(getattr(run, g)))]
    return [*found, *TRAINER]
