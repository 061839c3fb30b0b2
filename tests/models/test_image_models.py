"""The image models beside what others say of them: torchvision's logits, PyTorch's batch norm, the papers' counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.backend import Backends
from tests.workers.image_models.cases import arrays
from toolkit.config.spec import problems
from toolkit.errors import ConfigError
from toolkit.models.cnn.spec import CNN
from toolkit.models.resnet.spec import ResNet
from toolkit.models.vit.spec import ViT

Arrays = dict[str, np.ndarray]

IMAGENET = {"stages": 4, "width": 64, "stem": "imagenet", "shortcut": "projection"}


@pytest.fixture(scope="module")
def found(backends: Backends) -> dict[str, Arrays]:
    """Backend -> name -> array."""
    return backends.compute("image_models", "compute", arrays())


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
    """The last batch of an epoch may be one image, of which a deep network leaves one pixel."""
    y, gradient, variance = (found[backend][f"alone/{dtype}/{name}"] for name in ("y", "gradient", "variance"))
    assert np.isfinite(y).all() and not gradient.any()
    assert np.unique(y).size == 3  # the three shifts
    assert np.allclose(variance, 0.9)


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


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.patch: found 4 with images of 30 x 28, expected a divisor of both"):
        ViT().parameters((30, 28, 1), 10)
    with pytest.raises(ConfigError, match=r"found images of 3 x 9, expected at least 4 x 4; set features\.size"):
        CNN().parameters((3, 9, 1), 10)
    assert [field for field, _ in problems(ViT(dim=30))] == ["dim"]
    assert [field for field, _ in problems(CNN(kernel=4))] == ["kernel"]
