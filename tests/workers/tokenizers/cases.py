"""Parts that the workers of the tokenizers share: the lines and the tokenizers of a JSON text, and their twins."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Case = tuple[str, str, dict[str, Any], str]  # module and class of the spec, its fields, the folder that it learned into


def read(given: dict[str, Any]) -> tuple[list[str], dict[str, Case]]:
    """Lines, and name -> case."""
    lines, cases = json.loads(str(given["cases"]))
    return lines, cases


def write(found: dict[str, Any]) -> dict[str, np.ndarray]:
    return {"found": np.array(json.dumps(found))}


def twins(cases: dict[str, Case], backend: str) -> Iterator[tuple[str, Any]]:
    """Name and twin of each case."""
    for name, (module, kind, fields, folder) in cases.items():
        spec = getattr(importlib.import_module(module), kind)(**fields)
        twin = getattr(importlib.import_module(module.removesuffix("spec") + backend), kind)
        yield name, twin(spec, spec.load(Path(folder)))
