"""Small versions of components, by the names of their fields: none is listed here, so a new one is small too."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

from toolkit.config import schema, source
from toolkit.config.spec import is_spec, problems

# field -> value, wherever a spec has such a field with a greater value; nested specs too
FIELDS: dict[str, int] = {
    "channels": 4,
    "decoder_layers": 2,
    "depth": 8,
    "dim": 16,
    "embedding_dim": 12,
    "encoder_layers": 2,
    "feed_forward": 32,
    "heads": 2,
    "hidden": 8,
    "kernel": 5,
    "layers": 2,
    "max_bands": 5,
    "mels": 20,
    "patch": 2,
    "subsampling_channels": 4,
    "units": 8,
    "vocab_size": 16,
    "warmup_steps": 2,
    "width": 4,
}
# fields that are 1 in runs: one layer of each kind is traced in half the time of two
LAYERS = ("layers", "encoder_layers", "decoder_layers")
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


def make(kind: type[Any], **fields: Any) -> Any:
    """A small spec of this class with these fields."""
    return small(kind(**fields))


def small(spec: Any) -> Any:
    """``spec`` with the values of ``FIELDS`` in the place of greater ones, wherever it allows them.

    Raises:
        AssertionError: what comes of it is no good spec.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if is_spec(type(value)):
            values[field.name] = small(value)
        elif field.name in FIELDS and value is not None and value > FIELDS[field.name]:
            values[field.name] = FIELDS[field.name]
    while refused := values.keys() & {name.partition(".")[0] for name, _ in _problems(spec, values)}:
        values = {name: value for name, value in values.items() if name not in refused}
    assert not _problems(spec, values), (
        f"tests/support/tiny.py makes a bad {type(spec).__name__}: {_problems(spec, values)}"
    )
    return dataclasses.replace(spec, **values)


def _problems(spec: Any, values: dict[str, Any]) -> list[tuple[str, str]]:
    return list(problems(dataclasses.replace(spec, **values)))


def components(*arguments: str) -> list[str]:
    """Arguments of the command line that make the components of the run that ``arguments`` describe small."""
    return list(
        _components(*(re.sub(r"^(dataset\.path|run_dir)=.*", r"\1=/folder", argument) for argument in arguments))
    )


@functools.cache
def _components(*arguments: str) -> tuple[str, ...]:
    run = schema.check(arguments)
    groups = [group for group in source.PARTS if group not in ("dataset", "trainer")]
    specs = {group: getattr(run, group) for group in groups}
    return tuple(override for group, spec in specs.items() if spec is not None for override in _changed(group, spec))


def _changed(path: str, spec: Any) -> Iterator[str]:
    new = small(spec)
    for field in dataclasses.fields(spec):
        value = 1 if field.name in LAYERS else getattr(new, field.name)
        if is_spec(type(value)):
            yield from _changed(f"{path}.{field.name}", getattr(spec, field.name))
        elif value != getattr(spec, field.name):
            yield f"{path}.{field.name}={value}"
