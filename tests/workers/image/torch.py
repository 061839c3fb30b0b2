"""The PyTorch image features on every case, and what PyTorch itself makes of the same boxes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from tests.workers.image.cases import CASES, FIELDS, NARROW, RESIZED, STATE
from toolkit.config.build import build


def compute(given: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    out: dict[str, Any] = {}
    for name, (spec, *_) in CASES.items():
        args = [torch.from_numpy(given[f"{name}/{field}"]) for field in FIELDS]
        kept = [a.clone() for a in args]
        for dtype in ("float32", "float64"):
            found = build(spec, "torch", STATE).to(getattr(torch, dtype))(*args)
            assert found.is_contiguous(memory_format=torch.channels_last) and str(found.dtype) == f"torch.{dtype}"
            out[f"{name}/{dtype}"] = found.permute(0, 2, 3, 1)
        if name in NARROW:
            with torch.autocast("cpu", torch.bfloat16):
                out[f"{name}/bf16"] = build(spec, "torch", STATE)(*args).permute(0, 2, 3, 1)
        assert all(torch.equal(a, b) for a, b in zip(args, kept, strict=True))
        if name in RESIZED:
            out[f"{name}/interpolate"] = interpolated(spec.size, *args[:3])
    return out


def interpolated(size: int, images: torch.Tensor, boxes: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    rows = []
    for image, (top, left, height, width), flip in zip(images, boxes, flips, strict=True):
        cut = image[top : top + height, left : left + width].permute(2, 0, 1)[None].double()
        row = functional.interpolate(cut, (size, size), mode="bilinear", antialias=True, align_corners=False)
        rows.append(row.flip(3) if flip else row)
    return torch.cat(rows).permute(0, 2, 3, 1)
