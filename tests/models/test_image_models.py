"""The image models beside what others say of them: torchvision's logits, PyTorch's batch norm, the papers' counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.config.spec import problems
from toolkit.errors import ConfigError
from toolkit.models.cnn.spec import CNN
from toolkit.models.resnet.spec import ResNet
from toolkit.models.vit.spec import ViT

Arrays = dict[str, np.ndarray]

IMAGENET = {"stages": 4, "width": 64, "stem": "imagenet", "shortcut": "projection"}

# What both processes share: batch norm on batches of pictures, and a step of each model under mixed precision.
SHARED = """
import sys, numpy as np
from toolkit.layers import parameters as weights
from toolkit.config.build import build
from toolkit.models.cnn.spec import CNN
from toolkit.models.resnet.spec import ResNet
from toolkit.models.vit.spec import ViT
folder, out = sys.argv[1], {}
data = dict(np.load(f"{folder}/data.npz"))
MODELS = {"cnn": CNN(channels=4), "resnet": ResNet(depth=8, width=4), "vit": ViT(dim=16, layers=2, feed_forward=16)}
SIZE, CLASSES = (12, 8, 3), 5
pictures, labels = data["pictures"], np.arange(len(data["pictures"])) % CLASSES
def initial(spec, size=SIZE, classes=CLASSES):
    return weights.initial(spec.parameters(size, classes), 7)
"""

TORCH = (
    SHARED
    + """
import re, torch, torchvision
from torch import nn
from torch.nn import functional as F
from toolkit.layers import torch as layers
from toolkit.layers.normalization.torch import BatchNorm
torch.set_num_threads(1)

def norm(made, kind, dtype, name):
    x, weight, bias = (torch.from_numpy(data[n]).to(dtype) for n in (name, "weight", "bias"))
    with torch.no_grad():
        made.weight.copy_(weight), made.bias.copy_(bias)
    x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = made.train()(x)
    (y * y.detach().cos()).sum().backward()
    found = {"y": y, "gradient": x.grad, "evaluated": made.eval()(x)}
    found = {n: v.detach().permute(0, 2, 3, 1) for n, v in found.items()}
    found |= {"mean": made.running_mean, "variance": made.running_var, "by_weight": made.weight.grad}
    out.update({f"{name}/{kind}/{n}": v.numpy().copy() for n, v in found.items()})

for dtype in (torch.float64, torch.float32):
    norm(BatchNorm(data["weight"].size).to(dtype), str(dtype)[6:], dtype, "batch")
    norm(BatchNorm(data["weight"].size).to(dtype), str(dtype)[6:], dtype, "alone")
norm(nn.BatchNorm2d(data["weight"].size).double(), "stock", torch.float64, "batch")

for depth, block in ((18, "basic"), (50, "bottleneck")):
    spec = ResNet(depth=depth, block=block, stages=4, width=64, stem="imagenet", shortcut="projection")
    ours, theirs = build(spec, "torch", (37, 40, 3), 10), getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    given = initial(spec, (37, 40, 3), 10)
    random = np.random.default_rng(depth)
    given |= {n: random.uniform(0.5, 1.5, a.shape).astype("f") for n, a in given.items() if a.ndim == 1}
    layers.set_weights(ours, given)
    stages = [(stage, i) for stage, n in enumerate((2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3), 1) for i in range(n)]
    def theirs_name(name):
        name = name.replace("stem.conv.", "conv1.").replace("stem.norm.", "bn1.").replace("head.", "fc.")
        name = re.sub(r"blocks\\.(\\d+)", lambda m: "layer{}.{}".format(*stages[int(m[1])]), name)
        return name.replace("projection.conv", "downsample.0").replace("projection.norm", "downsample.1").replace(
            ".norm", ".bn")
    state = {theirs_name(name): torch.from_numpy(array) for name, array in given.items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and all("num_batches" in name for name in missing), (missing, unexpected)
    x = torch.from_numpy(data["large"]).permute(0, 3, 1, 2)
    for training in (False, True):
        for kind, model in (("ours", ours.double()), ("theirs", theirs.double())):
            logits = model.train(training)(x)
            out[f"resnet{depth}/{kind}/{training}"] = (logits[0] if kind == "ours" else logits).detach().numpy()
    out[f"resnet{depth}/ours/after"] = ours.blocks[-1].norm2.running_var.numpy()
    out[f"resnet{depth}/theirs/after"] = theirs.layer4[-1].bn2.running_var.numpy()

for name, spec in MODELS.items():
    for precision in ("float32", "bf16"):
        model = build(spec, "torch", SIZE, CLASSES).train()
        layers.set_weights(model, initial(spec)), layers.bind(model, 1), layers.set_step(model, 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits, _ = model(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        F.cross_entropy(logits, torch.from_numpy(labels)).backward()
        out[f"{name}/{precision}/logits"] = logits.detach().numpy()
        out[f"{name}/{precision}/gradient"] = model.head.weight.grad.numpy()
np.savez(f"{folder}/torch.npz", **out)
"""
)

TF = (
    SHARED
    + """
import keras, tensorflow as tf
from toolkit.layers import tf as layers
from toolkit.layers.normalization.tf import BatchNorm

def norm(dtype, name):
    made = BatchNorm(data["weight"].size)
    made.weight.assign(data["weight"]), made.bias.assign(data["bias"])
    x = tf.constant(data[name], dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = made(x, training=True)
        total = tf.reduce_sum(y * tf.stop_gradient(tf.cos(y)))
    found = {"y": y, "gradient": tape.gradient(total, x), "evaluated": made(x)}
    found |= {"mean": made.running_mean, "variance": made.running_var}
    found |= {"by_weight": tape.gradient(total, made.weight.value)}
    out.update({f"{name}/{dtype}/{n}": v.numpy() for n, v in found.items()})

for dtype in ("float64", "float32"):
    keras.config.set_floatx(dtype), keras.config.set_dtype_policy(dtype)
    norm(dtype, "batch"), norm(dtype, "alone")

for name, spec in MODELS.items():
    for precision in ("float32", "bf16"):
        keras.config.set_dtype_policy({"bf16": "mixed_bfloat16"}.get(precision, precision))
        model = build(spec, "tf", SIZE, CLASSES)
        layers.set_weights(model, initial(spec)), layers.bind(model, 1), layers.set_step(model, 0)
        with tf.GradientTape() as tape:
            logits, _ = model(tf.constant(pictures, tf.float32), training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        out[f"{name}/{precision}/logits"] = logits.numpy()
        out[f"{name}/{precision}/gradient"] = tape.gradient(loss, model.head.kernel.value).numpy().T
np.savez(f"{folder}/tf.npz", **out)
"""
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    """Backend -> name -> array."""
    folder = tmp_path_factory.mktemp("image_models")
    random = np.random.default_rng(5)
    channels = 3
    scale, centre = np.array([3.0, 1.0, 0.003]), np.array([50.0, 0.0, 1.0])  # in the last channel epsilon counts
    np.savez(
        folder / "data.npz",
        batch=random.standard_normal((4, 5, 6, channels)) * scale + centre,
        alone=random.standard_normal((1, 1, 1, channels)),
        weight=random.uniform(0.5, 2, channels),
        bias=random.standard_normal(channels),
        large=random.standard_normal((2, 37, 40, 3)),
        pictures=random.standard_normal((10, 12, 8, 3)).astype(np.float32),
    )
    env = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    for code in (TORCH, TF):
        command = [sys.executable, "-c", code, str(folder)]
        done = subprocess.run(command, env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
    return {backend: dict(np.load(folder / f"{backend}.npz")) for backend in ("torch", "tf")}


def apart(left: np.ndarray, right: np.ndarray) -> float:
    """Greatest difference over greatest magnitude."""
    assert left.shape == right.shape and np.isfinite(left).all() and np.isfinite(right).all()
    return float(np.abs(left.astype(float) - right).max() / np.abs(right).max())


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_is_torchvisions(depth: int, found: dict[str, Arrays]) -> None:
    for what in ("False", "True", "after"):
        ours, theirs = (found["torch"][f"resnet{depth}/{who}/{what}"] for who in ("ours", "theirs"))
        assert apart(ours, theirs) < 1e-10, what
    assert apart(found["torch"][f"resnet{depth}/ours/True"], found["torch"][f"resnet{depth}/ours/False"]) > 1e-3


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("dtype, limit", [("float64", 1e-10), ("float32", 1e-4)])
def test_batch_norm_of_pictures_is_pytorchs(backend: str, dtype: str, limit: float, found: dict[str, Arrays]) -> None:
    """In float32 the mean of the first channel is 17 deviations away: 1e-7 of it is 2e-6 of those; squared twice."""
    for name in ("y", "gradient", "evaluated", "mean", "variance", "by_weight"):
        own, stock = found[backend][f"batch/{dtype}/{name}"], found["torch"][f"batch/stock/{name}"]
        assert own.dtype == dtype
        for channel in range(own.shape[-1]):  # each by itself: that of small variance is not lost beside the others
            assert apart(own[..., channel], stock[..., channel]) < limit, (name, channel)


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_value_a_channel_normalises_to_the_shift(backend: str, dtype: str, found: dict[str, Arrays]) -> None:
    """The last batch of an epoch may be one picture, of which a deep network leaves one pixel."""
    arrays = {name: found[backend][f"alone/{dtype}/{name}"] for name in ("y", "gradient", "variance")}
    assert np.isfinite(arrays["y"]).all() and not arrays["gradient"].any()
    assert np.unique(arrays["y"]).size == 3  # the three shifts
    assert np.allclose(arrays["variance"], 0.9)


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("model", ["cnn", "resnet", "vit"])
def test_mixed_precision_keeps_head_and_statistics(backend: str, model: str, found: dict[str, Arrays]) -> None:
    """bfloat16 has 8 bits: 0.4 % at each rounding."""
    for name in ("logits", "gradient"):
        narrow, wide = (found[backend][f"{model}/{precision}/{name}"] for precision in ("bf16", "float32"))
        assert narrow.dtype == np.float32
        assert 1e-4 < apart(narrow, wide) < 0.1, name


# --- counts ----------------------------------------------------------------------------------------------------------


def count(spec: Any, size: tuple[int, int, int], classes: int) -> int:
    """Trainable values."""
    return sum(int(np.prod(p.shape)) for p in spec.parameters(size, classes).values() if p.trainable)


@pytest.mark.parametrize(
    "depth, millions", [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)], ids=lambda value: str(value)
)
def test_resnets_for_cifar_have_the_papers_parameters(depth: int, millions: float) -> None:
    """Table 6."""
    assert round(count(ResNet(depth=depth), (32, 32, 3), 10) / 1e6, 2) == millions


@pytest.mark.parametrize(
    "depth, block, parameters",
    [
        (18, "basic", 11_689_512),
        (34, "basic", 21_797_672),
        (50, "bottleneck", 25_557_032),
        (101, "bottleneck", 44_549_160),
        (152, "bottleneck", 60_192_808),
    ],
)
def test_resnets_for_imagenet_have_torchvisions_parameters(depth: int, block: str, parameters: int) -> None:
    assert count(ResNet(depth=depth, block=block, **IMAGENET), (224, 224, 3), 1000) == parameters


@pytest.mark.parametrize("dim, heads, millions", [(192, 3, 5.7), (384, 6, 22.0), (768, 12, 86.6)])
def test_vits_have_the_papers_parameters(dim: int, heads: int, millions: float) -> None:
    """ViT-B: 86 M in table 1 of the paper, exactly 86.6 M less the biases of the keys."""
    spec = ViT(patch=16, dim=dim, layers=12, heads=heads, feed_forward=4 * dim)
    assert round(count(spec, (224, 224, 3), 1000) / 1e6, 1) == millions


def test_zero_init_starts_blocks_as_identities() -> None:
    for depth, block, last in ((20, "basic", "norm2.weight"), (29, "bottleneck", "norm3.weight")):
        made = ResNet(depth=depth, block=block, zero_init=True).parameters((32, 32, 3), 10)
        zero = [name for name, p in made.items() if name.endswith("weight") and getattr(p.init, "value", 1) == 0]
        assert zero == [name for name in made if name.startswith("blocks.") and name.endswith(last)]
        assert len(zero) == 9


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"depth": 21},
            "found 21, expected 6 n + 2 (8, 14, 20, 26, 32, 38, 44, 50, 56, ...) with stages=3 and block=basic",
        ),
        (
            {"depth": 18},
            "found 18, expected 6 n + 2 (8, 14, 20, 26, 32, 38, 44, 50, 56, ...) with stages=3 and block=basic; 18 "
            "needs stages=4 with block=basic",
        ),
        (
            {"depth": 50, "stages": 4},
            "found 50, expected 18 or 34 with stages=4 and block=basic; 50 needs stages=3 with block=basic or stages=4 "
            "with block=bottleneck",
        ),
        (
            {"depth": 32, "block": "bottleneck"},
            "found 32, expected 9 n + 2 (11, 20, 29, ...) with stages=3 and block=bottleneck; 32 needs stages=3 with "
            "block=basic",
        ),
    ],
)
def test_a_depth_that_does_not_exist_is_refused(fields: dict[str, Any], message: str) -> None:
    assert list(problems(ResNet(**fields))) == [("depth", message)]


def test_every_depth_of_the_messages_exists() -> None:
    for depth in (8, 14, 20, 26, 32, 38, 44, 50, 56):
        assert not list(problems(ResNet(depth=depth))) and len(ResNet(depth=depth).blocks()) == (depth - 2) // 2
    for depth in (11, 20, 29):
        spec = ResNet(depth=depth, block="bottleneck")
        assert not list(problems(spec)) and len(spec.blocks()) == (depth - 2) // 3


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.patch: found 4 with images of 30 x 28, expected a divisor of both"):
        ViT().parameters((30, 28, 1), 10)
    with pytest.raises(ConfigError, match=r"found images of 3 x 9, expected at least 4 x 4; set features\.size"):
        CNN().parameters((3, 9, 1), 10)
    assert [field for field, _ in problems(ViT(dim=30))] == ["dim"]
    assert [field for field, _ in problems(CNN(kernel=4))] == ["kernel"]
