"""Composing small configs, for the tests of what they mean and what they may name."""

import textwrap
from pathlib import Path

import pytest

from toolkit.config import schema
from toolkit.errors import ConfigError

PLAIN = "recipe=plain"  # of OWN
OWN = Path(__file__).parents[1] / "config" / "conf"


def check(*overrides, folders=()):
    """The run that the recipe ``plain`` gives with these overrides."""
    return schema.check([PLAIN, *overrides], [*folders, OWN])


def refused(*overrides, folders=()):
    """The lines about a config that cannot be run."""
    with pytest.raises(ConfigError) as caught:
        schema.check(list(overrides), [*folders, OWN])
    assert caught.value.code == 2
    return caught.value.problems


def write(folder, name, text):
    """Write a file below ``folder`` and return ``folder``."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))
    return folder
