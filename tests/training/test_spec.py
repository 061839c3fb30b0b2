"""The trainer's spec: what is refused before anything runs."""

import contextlib
from dataclasses import replace

import pytest

from toolkit.config import schema as config
from toolkit.errors import ConfigError
from toolkit.training.spec import Trainer, check_gpus

REFUSED = {
    "backend=tf trainer=ddp": "ddp is not supported with backend=tf; set mirrored or tpu or multi_worker",
    "backend=tf trainer=fsdp": "fsdp is not supported with backend=tf; set mirrored or tpu or multi_worker",
    "backend=torch trainer=mirrored": "mirrored is not supported with backend=torch; set ddp or fsdp",
    "backend=torch trainer=tpu": "trainer.strategy: tpu is not supported with backend=torch; set ddp or fsdp",
    "backend=tf trainer=tpu trainer.nodes=2": "trainer.nodes: 2 is not supported with trainer.strategy=tpu",
    "backend=tf trainer=tpu trainer.precision=64": "trainer.precision: 64 is not supported with trainer.strategy=tpu",
    "backend=tf trainer=tpu trainer.precision=16": "trainer.precision: 16 is not supported with trainer.strategy=tpu",
    "backend=tf trainer=tpu trainer.static_shapes=false": "trainer.static_shapes: false is not supported",
    "backend=tf trainer=tpu trainer.loop=stock trainer.devices=1": "trainer.loop: stock is not supported",
    "backend=tf trainer=mirrored trainer.nodes=2": "mirrored is not supported with trainer.nodes=2; set multi_worker\n",
    "trainer=stock trainer.devices=2": "trainer.loop: stock is not supported with 2 devices",
    "trainer=fsdp trainer.loop=stock": "trainer.loop: stock is not supported with 2 devices",
    "trainer.devices=2 features.mixup=0.2": "features.mixup: 0.2 is not supported with 2 devices; set features.mixup=0",
    "trainer.nodes=2 model.native_dropout=true": "model.native_dropout: true is not supported with 2 devices",
    "trainer.devices=0": "trainer.devices: found 0, expected at least 1",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_runs(words):
    with pytest.raises(ConfigError) as error:
        config.check(["recipe=image_classification", *words.split()])
    assert REFUSED[words] in f"{error.value}\n"


def test_stock_does_not_accumulate():
    spec = replace(Trainer(), loop="stock", accumulate=2)
    assert [field for field, _ in spec.check()] == ["accumulate"]


def test_the_stock_loops_have_no_loss_scale():
    with pytest.raises(ConfigError, match=r"stock is not supported with trainer\.precision=16"):
        config.check(["recipe=image_classification", "trainer=stock", "trainer.precision=16"])


@pytest.mark.parametrize("gpus, fine", [(0, True), (1, False), (3, False), (4, True), (8, True)])
def test_more_devices_than_gpus_are_refused(gpus, fine):
    with contextlib.nullcontext() if fine else pytest.raises(ConfigError, match="found 4, expected at most"):
        check_gpus(4, gpus)
