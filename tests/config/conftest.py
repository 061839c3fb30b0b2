"""The tests of a config leave no trace in its modules."""

import pytest

from toolkit.config import source


@pytest.fixture(autouse=True)
def no_folders_afterwards(monkeypatch):
    """Restore the request that the module keeps, so that other tests do not find the recipes of these."""
    monkeypatch.setattr(source, "request", source.request)
