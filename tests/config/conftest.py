"""The tests of a config leave no trace in its modules."""

import pytest

from toolkit.config import source


@pytest.fixture(autouse=True)
def no_folders_afterwards(monkeypatch):
    """What was asked for last stays in the module: the tests of other files are not to find this file's recipes."""
    monkeypatch.setattr(source, "request", source.request)
