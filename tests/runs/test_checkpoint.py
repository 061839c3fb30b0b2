import contextlib
import errno
import hashlib
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

from toolkit.config import schema as config
from toolkit.errors import DataError, RunError
from toolkit.runs import checkpoint
from toolkit.runs.checkpoint import About
from toolkit.training.progress import Progress, State


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


ABOUT = About(
    {"seed": 0}, "torch", {"numpy": "2"}, {"learned/tokenizer/a/units": b"units", "learned/features/bands.json": b"{}"}
)
FILES = ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", *ABOUT.learned]


def averaged(seed=0):
    made = state(seed)
    made.ema = {"head.weight": made.model["head.weight"] / 2}
    return made


def test_all_that_a_run_needs_to_go_on_is_in_the_folder(tmp_path):
    path = checkpoint.save(tmp_path, averaged(), Progress(step=3, log_bytes={"metrics.jsonl": 7}), 1, ABOUT)
    moved = path.rename(tmp_path / "elsewhere")
    found = checkpoint.load(moved)
    assert found.about == ABOUT and found.progress.log_bytes == {"metrics.jsonl": 7}
    assert np.array_equal(found.state.ema["head.weight"], averaged().ema["head.weight"])
    assert {p.relative_to(moved).as_posix() for p in moved.rglob("*") if p.is_file()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    path = checkpoint.save(tmp_path, averaged(), Progress(step=1), 1, ABOUT)
    blob = bytearray((path / name).read_bytes())
    if damage == "flip":
        blob[len(blob) // 2 if name != "state.json" else 0] ^= 1
    if damage == "remove":
        (path / name).unlink()
    else:
        (path / name).write_bytes(blob if damage == "flip" else blob[:-7])
    with pytest.raises(DataError, match=name):
        checkpoint.load(path)


def test_no_bit_of_the_state_can_be_turned_unseen(tmp_path):
    path = checkpoint.save(tmp_path, averaged(), Progress(step=1234, best=0.25), 1, ABOUT) / "state.json"
    whole = path.read_bytes()
    seen = 0
    for place in range(len(whole)):
        blob = bytearray(whole)
        blob[place] ^= 1 << place % 8
        path.write_bytes(blob)
        try:
            found = checkpoint.load(path.parent)
        except DataError as error:
            assert "state.json" in str(error) or "safetensors" in str(error)
            seen += 1
        else:  # white space, or an escape that is another way to write the same
            assert found.progress == Progress(step=1234, best=0.25) and found.about == ABOUT
    assert seen > 0.7 * len(whole)


# --- what someone may put in the place of a checkpoint's files, checksums and all ---


def forged(folder, name, blob):
    """A checkpoint with another file in it, and the checksums that belong to it."""
    path = checkpoint.save(folder, state(), Progress(step=1), 1, ABOUT)
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(blob)
    facts = json.loads((path / "state.json").read_text())
    facts["sha256"][name] = hashlib.sha256(blob).hexdigest()
    facts["sha256"]["state.json"] = checkpoint._digest(facts)
    (path / "state.json").write_text(json.dumps(facts))
    return path


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def tensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "a pickle": pickle.dumps(Payload()),
    "nothing": b"",
    "a header beyond all memory": struct.pack("<Q", 2**63) + b"{}",
    "a header beyond the file": struct.pack("<Q", 1000) + b"{}",
    "a header that is no JSON": struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
    "a deep header": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "offsets beyond the file": tensors({"w": F32 | {"data_offsets": [0, 2**40], "shape": [2**38]}}, bytes(8)),
    "overlapping offsets": tensors({"v": F32, "w": F32}, bytes(8)),
    "a hole": tensors({"w": F32 | {"data_offsets": [8, 16]}}, bytes(16)),
    "negative offsets": tensors({"w": F32 | {"data_offsets": [-8, 0]}}, bytes(8)),
    "a shape of another size": tensors({"w": F32 | {"shape": [3]}}, bytes(8)),
    "a shape that overflows": tensors({"w": F32 | {"shape": [2**40, 2**40]}}, bytes(8)),
    "an unknown kind": tensors({"w": F32 | {"dtype": "PICKLE"}}, bytes(8)),
    "a kind that numpy lacks": tensors({"w": F32 | {"dtype": "BF16", "shape": [4]}}, bytes(8)),
    "whole numbers": tensors({"w": F32 | {"dtype": "I32"}}, bytes(8)),
    "truth values": tensors({"w": F32 | {"dtype": "BOOL", "shape": [8]}}, bytes(8)),
    "complex numbers": tensors({"w": F32 | {"dtype": "C64", "shape": [1]}}, bytes(8)),
}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "ema.safetensors"])
@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_file_of_arrays_is_one_line(tmp_path, monkeypatch, name, what):
    monkeypatch.chdir(tmp_path)
    path = forged(tmp_path, name, HOSTILE[what])
    with pytest.raises(DataError) as caught:
        checkpoint.load(path)
    assert len(caught.value.problems) == 1 and str(path / name) in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_a_file_reaches_a_parser_only_when_its_checksum_is_right(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path, state(), Progress(step=1), 1, ABOUT)
    (path / "optimizer.safetensors").write_bytes(HOSTILE["a header beyond all memory"])
    monkeypatch.setattr("safetensors.numpy.load", None)
    with pytest.raises(DataError, match=r"optimizer\.safetensors: damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "name",
    [
        "learned/tokenizer/../../../../stolen",
        "/etc/hostname",
        "learned/features/..",
        "learned/..",
        "config.yaml",
        "model.bin",
        "tokenizer",
        "tokenizer/units",
        "learned",
    ],
)
def test_a_checkpoint_names_no_file_outside_of_it(tmp_path, name):
    path = checkpoint.save(tmp_path / "run", state(), Progress(step=1), 1, ABOUT)
    facts = json.loads((path / "state.json").read_text())
    facts["sha256"][name] = "0" * 64
    facts["sha256"]["state.json"] = checkpoint._digest(facts)
    (path / "state.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"state.json: damaged .*does not belong in a checkpoint"):
        checkpoint.load(path)


@pytest.mark.parametrize("blob", [b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"format": 4, "sha256": 3}'])
def test_a_state_of_another_shape_is_named(tmp_path, blob):
    path = checkpoint.save(tmp_path, state(), Progress(step=1), 1)
    (path / "state.json").write_bytes(blob)
    with pytest.raises(DataError, match=r"state\.json: damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "version, hint", [(1, "an older version of the toolkit reads it"), (3, "commit 7879d9e"), (9, "update the toolkit")]
)
def test_another_format_is_named_with_what_reads_it(tmp_path, version, hint):
    path = checkpoint.save(tmp_path, state(), Progress(step=1), 1)
    (path / "state.json").write_text(json.dumps({"format": version}))
    with pytest.raises(DataError, match=f"found format {version}, expected 4; .*{hint}"):
        checkpoint.load(path)


# --- which one is taken ---


def test_of_damaged_ones_each_is_named_and_the_newest_whole_one_taken(tmp_path):
    for step in range(1, 5):
        checkpoint.save(tmp_path, state(step), Progress(step=step, best_step=2), keep=9)
    (tmp_path / "step-00000004" / "state.json").unlink()
    (tmp_path / "step-00000003" / "model.safetensors").write_bytes(b"")
    said: list[str] = []
    assert checkpoint.choose(tmp_path, "last", said.append).path.name == "step-00000002"
    assert len(said) == 2 and all("using step-00000002 instead" in line for line in said)
    assert "step-00000004" in said[0] and "step-00000003" in said[1]
    (tmp_path / "step-00000002" / "model.safetensors").write_bytes(b"")
    assert checkpoint.choose(tmp_path, "best", said.append).path.name == "step-00000001"
    assert "step-00000002/model.safetensors" in said[2]
    (tmp_path / "step-00000001" / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        checkpoint.choose(tmp_path, "last", said.append)
    assert len(caught.value.problems) == 4


def test_a_later_one_that_is_damaged_goes_once_there_is_a_whole_one_after_the_resume(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, state(step), Progress(step=step), keep=2)
    (tmp_path / "step-00000003" / "model.safetensors").write_bytes(b"")
    checkpoint.save(tmp_path, state(5), Progress(step=2), keep=1)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["step-00000002"]
    assert same(checkpoint.choose(tmp_path, "last", pytest.fail).state, state(5))


@pytest.mark.parametrize("index", [None, b"", b"{", b"[]", b'{"best": "../../elsewhere"}'])
def test_the_best_is_found_without_an_index(tmp_path, index):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, state(step), Progress(step=step, best_step=2), keep=9)
    (tmp_path / "index.json").unlink()
    if index is not None:
        (tmp_path / "index.json").write_bytes(index)
    found = checkpoint.find(tmp_path, "best")
    assert (found and found.name) == (None if index and b"else" in index else "step-00000002")


def test_the_best_is_not_removed_before_its_successor_is_whole(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state(1), Progress(step=1, best=0.5, best_step=1), keep=1)
    checkpoint.save(tmp_path, state(2), Progress(step=2, best=0.5, best_step=1), keep=1)
    monkeypatch.setattr(checkpoint, "_read_back", lambda *_: (_ for _ in ()).throw(OSError("otherwise")))
    with pytest.raises(RunError):
        checkpoint.save(tmp_path, state(3), Progress(step=3, best=0.4, best_step=3), keep=1)
    assert checkpoint.load(checkpoint.find(tmp_path, "best")).progress.step == 1


def test_every_file_and_folder_is_on_the_disk_before_the_renaming_and_then_the_one_above(tmp_path, monkeypatch):
    done: list[object] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(new), replace(old, new)))
    path = checkpoint.save(tmp_path, averaged(), Progress(step=1), 1, ABOUT)
    renamed = done.index(path)
    assert {p.stat().st_ino for p in (path, *path.rglob("*"))} == set(done[:renamed])
    assert done[renamed + 1] == tmp_path.stat().st_ino


def test_what_the_disk_gives_back_otherwise_is_no_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state(1), Progress(step=1), keep=2)
    checkpoint.save(tmp_path, state(2), Progress(step=2), keep=2)
    write = checkpoint._write

    def forgetful(path, blob):
        write(path, blob[:-1] + bytes([blob[-1] ^ 4]) if path.name == "optimizer.safetensors" else blob)

    monkeypatch.setattr(checkpoint, "_write", forgetful)
    for step in (2, 3):  # written again, and new
        with pytest.raises(RunError, match=r"optimizer.safetensors: the bytes read back differ"):
            checkpoint.save(tmp_path, state(9), Progress(step=step), keep=2)
        assert same(checkpoint.choose(tmp_path, "last", pytest.fail).state, state(2))


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
    with pytest.raises(DataError, match="format 1, expected 4"):
        checkpoint.load(path)


@pytest.mark.parametrize("killed_at", range(1, 25))
def test_killed_anywhere_while_it_writes_a_step_again_a_last_one_stays(tmp_path, monkeypatch, killed_at):
    """Such as at an epoch's end, where a regular checkpoint is followed by the one after the validation."""
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
    assert any(same(found.state, state(n)) for n in (2, 3)) and found.progress.step == 2
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


# --- the page ---

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "design" / "checkpoints.md").read_text("utf-8")
RESUMING = (DOCS / "guide" / "training.md").read_text("utf-8")
LINES = {text.split()[1]: text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
ANSWER = {
    "torch": "print(head(torch.ones(1, 4)).tolist())",
    "keras": "print(head(keras.ops.ones((1, 4))).numpy().tolist())",
}


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_the_lines_of_the_page_load_weights_without_the_toolkit(tmp_path, framework):
    path = checkpoint.save(tmp_path / "checkpoints", state(3), Progress(step=1234), 1)
    lines = LINES[framework].replace("RUN_FOLDER", str(tmp_path))
    guard = "import sys; sys.modules['toolkit'] = None\n"
    command = [sys.executable, "-c", guard + lines + ANSWER[framework]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    model = state(3).model
    expected = model["head.weight"].sum(1) + model["head.bias"]
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1])[0], expected, rtol=1e-5)
    assert path.name in lines and sum(map(bool, LINES[framework].splitlines())) <= 6


def test_the_pages_name_every_key_and_file_and_what_a_resume_accepts():
    facts = json.loads(checkpoint._packed(averaged(), Progress(), ABOUT)["state.json"])
    for key in (*facts, *(name.partition("/")[0] for name in FILES)):
        assert f"`{key}" in PAGE, key
    for name in typing.get_args(config.Accepted):
        assert f"accept=[{name}]" in RESUMING, name
