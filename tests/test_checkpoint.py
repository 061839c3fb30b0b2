import contextlib
import errno
import json
import os

import numpy as np
import pytest

from toolkit import checkpoint
from toolkit.checkpoint import Progress, State
from toolkit.errors import DataError, RunError


def state(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    model = {"head.weight": rng.normal(size=(3, 4)).astype("f4"), "head.bias": rng.normal(size=3).astype("f4")}
    return State(model, {f"exp_avg.{k}": v * 0.1 for k, v in model.items()} | {"step": np.array([seed])})


def same(a: State, b: State) -> bool:
    return all(
        x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) and x[k].dtype == y[k].dtype for k in x)
        for x, y in ((a.model, b.model), (a.optimizer, b.optimizer))
    )


def test_round_trip_is_bit_equal(tmp_path):
    at = Progress(step=12, epoch=3, batch=4, best=0.5, best_step=12, stale=1, facts={"seed": 7})
    path = checkpoint.save(tmp_path, state(1), at, keep=2)
    assert path.name == "step-00000012"
    found = checkpoint.load(path)
    assert same(found.state, state(1))
    assert found.progress == at
    assert checkpoint.find(tmp_path, "last") == checkpoint.find(tmp_path, "best") == path
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_keeps_the_best_and_the_newest(tmp_path):
    for step in range(1, 8):
        checkpoint.save(tmp_path, state(step), Progress(step=step, best_step=2 if step > 1 else None), keep=2)
    assert sorted(p.name[-1] for p in tmp_path.glob("step-*")) == ["2", "6", "7"]
    assert checkpoint.find(tmp_path, "best").name.endswith("2")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    path = checkpoint.save(tmp_path, state(), Progress(step=1), keep=1)
    blob = bytearray((path / name).read_bytes())
    if damage == "flip":
        blob[len(blob) // 2 if name != "state.json" else 0] ^= 1
    if damage == "remove":
        (path / name).unlink()
    else:
        (path / name).write_bytes(blob if damage == "flip" else blob[:-7])
    with pytest.raises(DataError, match=name):
        checkpoint.load(path)


def test_another_format_is_refused(tmp_path):
    path = checkpoint.save(tmp_path, state(), Progress(step=1), keep=1)
    facts = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(DataError, match="format 99"):
        checkpoint.load(path)


def test_another_format_is_named_even_where_its_fields_are_others(tmp_path):
    path = checkpoint.save(tmp_path, state(), Progress(step=1), keep=1)
    facts = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(facts | {"format": 1, "shard": 0}))
    with pytest.raises(DataError, match="format 1, expected 2"):
        checkpoint.load(path)


@pytest.mark.parametrize("killed_at", range(1, 20))
def test_killed_anywhere_while_it_writes_a_step_again_a_last_one_stays(tmp_path, monkeypatch, killed_at):
    """Such as at an epoch's end, where a regular checkpoint is followed by the one after the validation."""
    checkpoint.save(tmp_path, state(1), Progress(step=1), keep=2)
    checkpoint.save(tmp_path, state(2), Progress(step=2), keep=2)
    calls = 0

    def counted(module, name):
        original = getattr(module, name)

        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls >= killed_at:
                raise KeyboardInterrupt  # as a kill: nothing catches it and nothing is tidied up
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    for module, name in ((os, "fsync"), (os, "replace"), (checkpoint.shutil, "rmtree")):
        counted(module, name)
    with contextlib.suppress(KeyboardInterrupt):
        checkpoint.save(tmp_path, state(3), Progress(step=2, best=0.1, best_step=2), keep=2)
    monkeypatch.undo()
    last = checkpoint.find(tmp_path, "last")
    assert last is not None
    found = checkpoint.load(last)
    assert any(same(found.state, state(n)) for n in (1, 2, 3)) and found.progress.step in (1, 2)
    checkpoint.save(tmp_path, state(4), Progress(step=2), keep=2)  # and it can be written again
    assert same(checkpoint.load(checkpoint.find(tmp_path, "last")).state, state(4))
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".old")]


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    first = checkpoint.save(tmp_path, state(1), Progress(step=1), keep=1)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left.*needs [\d,]+ bytes"):
        checkpoint.save(tmp_path, state(2), Progress(step=2), keep=1)
    assert checkpoint.find(tmp_path, "last") == first
    assert same(checkpoint.load(first).state, state(1))
    assert [p.name for p in tmp_path.glob("*step*")] == [first.name]
