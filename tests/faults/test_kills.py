"""Real runs of both backends, killed with SIGKILL; two hundred and more are the business of ``scripts/soak``."""

from __future__ import annotations

import random
import shutil
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from toolkit.runs import checkpoint

from . import soak
from .runs import Starter, arguments, differences, fresh, gone, newest, taken, until

KILLS = {"torch": 4, "tf": 2}
only_torch = pytest.mark.parametrize("killed", ["torch"], indirect=True, scope="module")  # the same with any backend


@pytest.fixture(scope="module", params=["torch", "tf"])
def killed(request, backends, tmp_path_factory):
    """A starter, the folder of an unbroken run, and that of one that was killed a few times."""
    work = tmp_path_factory.mktemp("kills")
    cell = ("image_classification", request.param, 0)
    found = soak.Cell()
    starter = Starter(backends[request.param], work)
    soak.soak(cell, KILLS[request.param], starter, work, random.Random(5), found)
    names = "-".join(map(str, cell))
    return starter, work / f"image_classification-{request.param}", work / names, found


def test_a_run_killed_at_random_moments_ends_bit_equal_to_the_unbroken_one(killed):
    _, _, _, found = killed
    assert found.fell.total() >= 2 and found.runs
    assert (found.diverged, found.lost) == ([], [])


@only_torch
@pytest.mark.long
def test_begun_without_workers_killed_and_gone_on_with_two_it_is_the_same_to_the_bit(killed):
    """And so are two kinds of order: of the steps' examples, and of the validation's."""
    starter, twin, _, _ = killed
    folder = fresh(starter.work / "moved")
    own = arguments("image_classification", starter.backend, starter.work / "data", folder)
    attempt = starter.begin(own, starter.work / "console.log")
    assert until(lambda: taken(folder) >= 32 or not attempt.running)
    attempt.kill()
    assert attempt.wait() == -signal.SIGKILL and newest(folder) > 0
    attempt = starter.begin([*own, "trainer.workers=2"], starter.work / "console.log")
    began = until(lambda: taken(folder) >= 40 or not attempt.running)
    children = attempt.children
    assert began and attempt.wait() == 0
    assert gone(children)
    assert differences(folder, twin) == []


@only_torch
def test_one_bit_a_row_and_a_prediction_are_seen_to_differ(killed, tmp_path):
    """The comparison on which all of this rests."""
    _, twin, _, _ = killed
    copy = shutil.copytree(twin, tmp_path / "copy")
    assert differences(copy, twin) == []
    last = checkpoint.find(copy / "checkpoints", "last")
    arrays = load_file(last / "optimizer.safetensors")
    name = next(k for k, v in arrays.items() if v.dtype == np.float32)
    arrays[name].view(np.uint32).flat[0] ^= 1
    found = checkpoint.load(last)
    found.state.optimizer.update(arrays)
    checkpoint.save(copy / "checkpoints", found.state, found.progress, 9, found.about)
    assert any("optimizer" in line for line in differences(copy, twin))
    copy = shutil.copytree(twin, tmp_path / "other")
    for name in ("metrics.jsonl", "examples.jsonl", "predictions/test.jsonl"):
        (copy / name).write_text("".join((copy / name).read_text().splitlines(keepends=True)[:-1]))
    assert len(differences(copy, twin)) == 3
