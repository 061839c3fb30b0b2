"""Small versions of components, by the names of their fields: none is listed here, so a new one is small too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from toolkit import config, recipe_source
from toolkit.spec import is_spec, problems

# field -> value, wherever a spec has such a field with a greater value; nested specs too
FIELDS: dict[str, Any] = {
    "dim": 16,
    "layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "heads": 2,
    "feed_forward": 32,
    "kernel": 5,
    "units": 8,
    "subsampling_channels": 4,
    "mels": 20,
    "max_bands": 5,
    "warmup_steps": 2,
}
# a short run, logged at every step
SHORT = [
    "trainer.batch_budget=null",
    "trainer.batch_examples=8",
    "trainer.max_epochs=100",
    "trainer.max_steps=4",
    "trainer.validate_every=1",
    "trainer.log_every=1",
    "trainer.show=2",
    "trainer.precision=32",
    "trainer.workers=0",
]


def fields(spec: Any) -> Iterator[tuple[str, Any]]:
    """``(dotted field, value)`` of all that makes a spec, or one with the defaults of a spec class, small."""
    for field in dataclasses.fields(spec):
        value = field.default if isinstance(spec, type) else getattr(spec, field.name)
        if is_spec(type(value)):
            yield from ((f"{field.name}.{inner}", small) for inner, small in fields(value))
        elif field.name in FIELDS and (value is dataclasses.MISSING or value > FIELDS[field.name]):
            yield field.name, FIELDS[field.name]


def make(kind: type[Any], **changed: Any) -> Any:
    """A small spec of this class, with these fields changed.

    Raises:
        AssertionError: the values in ``FIELDS`` do not suit this class.
    """
    own = {name: value for name, value in fields(kind) if "." not in name}
    inner = {f.name: make(type(f.default)) for f in dataclasses.fields(kind) if is_spec(type(f.default))}
    made = kind(**own | inner | changed)
    assert not list(problems(made)), f"tests/tiny.py makes a bad {kind.__name__}: {list(problems(made))}"
    return made


def components(*arguments: str) -> list[str]:
    """Arguments of the command line that make the components of the run that ``arguments`` describe small."""
    run = config.check(arguments)
    groups = [group for group in recipe_source.PACKAGES if group not in ("dataset", "trainer")]
    return [f"{group}.{name}={value}" for group in groups for name, value in fields(getattr(run, group))]
