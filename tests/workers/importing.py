"""``python -m tests.workers.importing BACKEND MODULES``: import modules; print what is found of the other backend.

It is forked from a process that has called ``process.prepare(BACKEND)``.
"""

import importlib
import importlib.util
import json
import sys

from toolkit.config import process


def importable(name: str) -> bool:
    """Try to import a module."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


if __name__ == "__main__":
    backend, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    names = sorted(process.FOREIGN[backend])
    found = {
        "imported": [name for name in names if name in sys.modules],
        "findable": [name for name in names if importlib.util.find_spec(name)],
        "importable": [name for name in names if importable(name)],
    }
    print(json.dumps(found))
