"""Checkpoints that are not what was written: every kind of damage in every file, and pickles in their places."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from toolkit.data import pipeline
from toolkit.data.columns.column import columns_of
from toolkit.errors import DataError
from toolkit.runs import checkpoint
from toolkit.runs.checkpoint import About
from toolkit.training.progress import Progress, State

ABOUT = About({"seed": 0}, "torch", {"numpy": "2"}, {"learned/pieces.model": b"pieces" * 9, "learned/a/b.json": b"{}"})
FILES = ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", *ABOUT.learned]


def state(seed):
    arrays = {"w": np.random.default_rng(seed).normal(size=(3, 4)).astype("f4")}
    return State(arrays, {"exp_avg.w": arrays["w"] / 2, "step": np.array([seed])}, {"w": arrays["w"] / 3})


@pytest.fixture
def two(tmp_path):
    """A folder with two checkpoints."""
    for step in (1, 2):
        checkpoint.save(tmp_path / "c", state(step), Progress(step=step, best_step=1), 9, ABOUT)
    return tmp_path / "c"


def taken(folder, name):
    """The step that a run goes on from, once it is seen that what is told of a damage names the file."""
    said: list[str] = []
    found = checkpoint.choose(folder, "last", said.append)
    step = found.progress.step
    right = state(step)
    for part in ("model", "optimizer", "ema"):
        a, b = getattr(found.state, part), getattr(right, part)
        assert all(np.array_equal(a[k], b[k]) for k in b) and a.keys() == b.keys()
    assert found.about == ABOUT
    assert (step == 2) == (not said) and all(name in line for line in said)
    return step


def bits(blob):
    for place in range(0, len(blob), 5):
        yield blob[:place] + bytes([blob[place] ^ 1 << place % 8]) + blob[place + 1 :]


def ends(blob):
    yield from (blob[:length] for length in range(0, len(blob), 7))
    yield blob + b"\0"
    yield bytes(len(blob))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [bits, ends])
def test_whatever_is_damaged_the_checkpoint_before_is_taken(two, name, damage):
    file = two / "step-00000002" / name
    whole = file.read_bytes()
    steps = []
    for blob in damage(whole):
        file.write_bytes(blob)
        steps.append(taken(two, name))
    # of state.json some bits are white space
    assert steps.count(1) == len(steps) or (name == "state.json" and steps.count(1) > 0.7 * len(steps))


def test_without_the_checksums_damage_is_seen_to_pass(two, monkeypatch):
    class Same:
        def hexdigest(self):
            return "same"

    monkeypatch.setattr(checkpoint.hashlib, "sha256", lambda *_: Same())
    facts = json.loads((two / "step-00000002" / "state.json").read_text())
    facts["sha256"] = dict.fromkeys(facts["sha256"], "same")
    (two / "step-00000002" / "state.json").write_text(json.dumps(facts))
    file = two / "step-00000002" / "model.safetensors"
    blob = file.read_bytes()
    file.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    with pytest.raises(AssertionError):
        taken(two, "model.safetensors")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def pickled(folder, name, protocol, forged):
    """Put a pickle in the place of a file, ``forged`` with the checksums that belong to it."""
    blob = pickle.dumps({"w": Payload()}, protocol)
    (folder / name).write_bytes(blob)
    if forged and name != "state.json":
        facts = json.loads((folder / "state.json").read_text())
        facts["sha256"][name] = hashlib.sha256(blob).hexdigest()
        facts["sha256"]["state.json"] = checkpoint._digest(facts)
        (folder / "state.json").write_text(json.dumps(facts))
    return blob


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("protocol", [0, 5])
@pytest.mark.parametrize("forged", [False, True])
def test_no_pickle_in_the_place_of_a_file_is_ever_executed(two, tmp_path, monkeypatch, name, protocol, forged):
    monkeypatch.chdir(tmp_path)
    blob = pickled(two / "step-00000002", name, protocol, forged)
    said: list[str] = []
    found = checkpoint.choose(two, "last", said.append)
    if forged and name in ABOUT.learned:  # bytes like any others, which go to the library that reads them
        assert found.about.learned[name] == blob
        with pytest.raises(DataError):
            load_learned(found, tmp_path / "run")
    else:
        assert found.progress.step == 1 and name in said[0]
    assert not (tmp_path / "executed").exists()


def load_learned(found, folder):
    """What a run does with the tokenizer of a checkpoint: here pieces are all that there are."""
    from toolkit.config import schema as config

    run = config.check(["recipe=translation", "dataset=parallel_text", "dataset.path=x"])
    for blob in found.about.learned.values():
        (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer" / "sentencepiece.model").write_bytes(blob)
    pipeline.load(columns_of(run), folder)


def test_a_reader_of_pickles_is_seen_to_execute_one(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled(two / "step-00000002", "model.safetensors", 5, True)
    monkeypatch.setattr(
        checkpoint,
        "_tensors",
        lambda path, blobs: blobs and pickle.loads(blobs.pop("model.safetensors", pickle.dumps({}))),
    )
    checkpoint.load(two / "step-00000002")
    assert (tmp_path / "executed").exists()


def test_the_index_is_a_hint_and_no_file_is_read_by_its_word(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(two / "step-00000002", tmp_path / "elsewhere")
    for blob in (pickle.dumps(Payload()), b'{"best": "../elsewhere", "last": "../elsewhere"}', b"\0" * 40):
        (two / "index.json").write_bytes(blob)
        found = checkpoint.find(two, "best")
        assert found is None or found.parent == two
        assert taken(two, "index.json") == 2
    assert not (tmp_path / "executed").exists()
