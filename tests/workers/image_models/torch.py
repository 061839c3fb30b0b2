"""PyTorch's image models: batch norm, ResNet beside torchvision's, and a step of each under mixed precision."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tests.workers.image_models.cases import CLASSES, MODELS, SIZE, initial, labels
from toolkit.config.build import build
from toolkit.layers import torch as layers
from toolkit.layers.normalization.torch import BatchNorm
from toolkit.models.resnet.spec import ResNet

LAYOUTS = {18: ("basic", (2, 2, 2, 2)), 50: ("bottleneck", (3, 4, 6, 3))}  # depth -> block, blocks of each stage
OURS_TO_THEIRS = {
    "stem.conv.": "conv1.",
    "stem.norm.": "bn1.",
    "head.": "fc.",
    "projection.conv": "downsample.0",
    "projection.norm": "downsample.1",
    ".norm": ".bn",
}


def compute(given: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    channels = given["weight"].size
    out: dict[str, Any] = {}
    for dtype in (torch.float64, torch.float32):
        for name in ("batch", "alone"):
            found = norm(BatchNorm(channels).to(dtype), given, dtype, name)
            out |= {f"{name}/{str(dtype)[6:]}/{key}": value for key, value in found.items()}
    stock = norm(nn.BatchNorm2d(channels).double(), given, torch.float64, "batch")
    out |= {f"batch/stock/{key}": value for key, value in stock.items()}
    for depth in LAYOUTS:
        out |= {f"resnet{depth}/{key}": value for key, value in beside_torchvision(depth, given["large"]).items()}
    for name in MODELS:
        for precision in ("float32", "bf16"):
            found = step(name, precision, given["images"])
            out |= {f"{name}/{precision}/{key}": value for key, value in found.items()}
    return out


def norm(layer: Any, given: dict[str, Any], dtype: torch.dtype, name: str) -> dict[str, torch.Tensor]:
    x, weight, bias = (torch.from_numpy(given[n]).to(dtype) for n in (name, "weight", "bias"))
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer.train()(x)
    (y * y.detach().cos()).sum().backward()
    found = {"y": y, "gradient": x.grad, "evaluated": layer.eval()(x)}
    found = {n: v.detach().permute(0, 2, 3, 1) for n, v in found.items()}
    return found | {"mean": layer.running_mean, "variance": layer.running_var, "by_weight": layer.weight.grad}


def beside_torchvision(depth: int, images: np.ndarray) -> dict[str, torch.Tensor]:
    """Logits and a running statistic of both, with the same weights."""
    block, blocks = LAYOUTS[depth]
    spec = ResNet(depth=depth, block=block, stages=4, width=64, stem="imagenet", shortcut="projection")
    ours = build(spec, "torch", images.shape[1:], 10)
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    random = np.random.default_rng(depth)
    weights = initial(spec, images.shape[1:], 10)
    weights |= {n: random.uniform(0.5, 1.5, a.shape).astype("f") for n, a in weights.items() if a.ndim == 1}
    layers.set_weights(ours, weights)
    places = [(stage, i) for stage, count in enumerate(blocks, 1) for i in range(count)]
    state = {theirs_name(name, places): torch.from_numpy(array) for name, array in weights.items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and all("num_batches" in name for name in missing), (missing, unexpected)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    out = {}
    for training in (False, True):
        out[f"ours/{training}"] = ours.double().train(training)(x)[0]
        out[f"theirs/{training}"] = theirs.double().train(training)(x)
    out["ours/after"] = ours.blocks[-1].norm2.running_var
    return out | {"theirs/after": theirs.layer4[-1].bn2.running_var}


def theirs_name(name: str, places: list[tuple[int, int]]) -> str:
    name = re.sub(r"blocks\.(\d+)", lambda m: "layer{}.{}".format(*places[int(m[1])]), name)
    for ours, theirs in OURS_TO_THEIRS.items():
        name = name.replace(ours, theirs)
    return name


def step(name: str, precision: str, images: np.ndarray) -> dict[str, torch.Tensor]:
    model = build(MODELS[name], "torch", SIZE, CLASSES).train()
    layers.set_weights(model, initial(MODELS[name]))
    layers.bind(model, 1)
    layers.set_step(model, 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits, _ = model(torch.from_numpy(images).permute(0, 3, 1, 2))
    F.cross_entropy(logits, torch.from_numpy(labels(images))).backward()
    return {"logits": logits, "gradient": model.head.weight.grad}
