"""Ids and texts of the PyTorch tokenizers."""

from __future__ import annotations

from typing import Any

import torch

from tests.workers.tokenizers.cases import read, twins, write


def compute(given: dict[str, Any]) -> dict[str, Any]:
    lines, cases = read(given)
    found = {}
    for name, twin in twins(cases, "torch"):
        ids, lengths = twin(lines)
        assert ids.dtype == torch.int64 and ids.shape == (len(lines), int(lengths.max()))
        assert twin([""])[0].shape == (1, 0)
        rows = [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)]
        found[name] = dict(ids=rows, texts=twin.detokenize(ids, lengths))
    return write(found)
