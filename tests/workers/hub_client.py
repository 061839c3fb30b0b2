"""Load the datasets that ``tests/support/hub_server.py`` orders, one line of JSON each, and answer with their examples.

A streamed split is read shard by shard, as in training.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.data.example import Example, File, Sentence
from toolkit.data.problems import Problem
from toolkit.data.source import Source


def read(dataset: Source, cache: Path) -> Iterator[Example | Problem]:
    """Yield all examples of a dataset, those of a streamed split from its shards."""
    if dataset.streaming:
        yield from dataset.shards("train", cache).all_examples(dataset, "train")
    yield from dataset.examples(cache, None)  # type: ignore[arg-type]


def shown(value: object) -> str:
    if isinstance(value, File):
        content = value.content() if callable(value.content) else value.content
        assert isinstance(content, bytes)
        return hashlib.sha1(content).hexdigest()[:8]
    return value.text if isinstance(value, Sentence) else str(value)


def answer(order: dict[str, Any]) -> dict[str, Any]:
    os.environ.pop("HF_TOKEN", None)
    if order["token"]:
        os.environ["HF_TOKEN"] = order["token"]
    module, _, name = order["target"].rpartition(".")
    dataset = vars(importlib.import_module(f"toolkit.datasets.{module}"))[name](**order["fields"])
    examples: dict[str, list[Any]] = {}
    for item in read(dataset, Path(order["cache"])):
        if isinstance(item, Problem):
            examples.setdefault("problems", []).append(str(item))
        else:
            examples.setdefault(item.split, []).append([item.id, *map(shown, item.values.values())])
    return {"examples": examples}


def main() -> None:
    from huggingface_hub import constants

    constants.DOWNLOAD_CHUNK_SIZE = 256  # bytes; what arrives before a connection breaks is kept by whole chunks
    sleep, waits = time.sleep, list[float]()
    time.sleep = lambda seconds: waits.append(seconds) if seconds >= 1 else sleep(seconds)  # between two attempts
    channel, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        waits.clear()
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            reply = {"error": str(error), "kind": type(error).__name__}
        print(json.dumps(reply | {"waited": sum(waits)}), file=channel, flush=True)


if __name__ == "__main__":
    main()
