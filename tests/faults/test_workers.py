"""Loader workers of torch that die, cannot make a batch, or lose their parent; those of TensorFlow are threads."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from .runs import ROOT, alive, descendants, gone, until

PROGRAM = """
import os, signal, sys, time
from types import SimpleNamespace
import numpy as np
from toolkit import run
from toolkit.training.split import naming_examples

class Collator:
    def __setstate__(self, state):  # in a worker, before it begins
        if state.get("off") == "watch":
            from toolkit.data.loaders import torch
            torch._end_with_the_parent = lambda: None

    def __getstate__(self):
        return {"off": sys.argv[2] if sys.argv[2:] else ""}

    def __call__(self, batch, epoch):
        if sys.argv[2:3] == ["bad"] and 7 in batch:
            raise ValueError("a picture of no size")
        time.sleep(0.02 if batch[0] < 8 or sys.argv[2:3] == ["bad"] else 60)
        return {"example": batch}

def work():
    batches = [np.arange(4 * i, 4 * i + 4) for i in range(6)]
    split = SimpleNamespace(name="train", ids=[f"u{i}" for i in range(24)])
    with naming_examples(split):
        for batch in loaded(batches):
            print([int(i) for i in batch["example"]], flush=True)
    return 0

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background would ignore it
    if sys.argv[1] == "torch":
        from toolkit.data.loaders import torch as loaders
        if sys.argv[2:3] == ["look"]:
            loaders._Loader._look = lambda self, batches: None
        loaded = lambda batches: loaders.loader(Collator(), batches, 0, 2)
    else:
        from toolkit.data.loaders import tf as loaders
        fields = {"example": (("batch",), np.int64)}
        load = lambda batches: loaders.loader(Collator(), batches, fields, 0, 2)
        loaded = lambda batches: ({"example": b["example"].numpy()} for b in load(batches))
    sys.exit(run.guarded(work))
"""


@pytest.fixture
def program(tmp_path):
    """Starts a process whose loader has two workers, each of which is busy once the first two batches are there."""
    (tmp_path / "program.py").write_text(PROGRAM)
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def busy(process):
    """The ids of the workers: leaves of the tree of processes that have a parent of the same kind."""
    assert [process.stdout.readline() for _ in range(2)] == ["[0, 1, 2, 3]\n", "[4, 5, 6, 7]\n"]
    time.sleep(0.5)  # each has taken its next batch by now
    everyone = set(descendants(process.pid))
    servers = {p for p in everyone if set(descendants(p))}
    workers = {p for server in servers for p in descendants(server)}
    assert len(workers) == 2
    return workers, everyone


def test_a_dead_worker_is_noticed_within_ten_seconds_with_the_examples_that_it_had(program):
    process = program("torch")
    workers, everyone = busy(process)
    os.kill(min(workers), signal.SIGKILL)
    began = time.monotonic()
    line = process.stderr.readline()
    assert time.monotonic() - began < 10
    assert process.wait(60) == 1
    assert not [told for told in process.stderr if "resource_tracker" not in told]  # Python's own, at its end
    assert re.search(r"train: loader worker \d \(process \d+\) was killed by SIGKILL; the batch at hand: ", line)
    assert "u8, u9, u10, u11" in line or "u12, u13, u14, u15" in line
    assert gone(everyone)


def test_of_a_parent_that_was_killed_no_worker_stays_behind(program):
    process = program("torch")
    _, everyone = busy(process)
    process.kill()
    assert gone(everyone)


def test_without_the_guards_workers_stay_behind_and_a_dead_one_has_no_name(program):
    """The controls of the two tests above."""
    process = program("torch", "watch")
    workers, everyone = busy(process)
    process.kill()
    assert not until(lambda: not any(alive(worker) for worker in workers), 3)
    for pid in everyone:
        os.kill(pid, signal.SIGKILL)
    process = program("torch", "look")
    workers, _ = busy(process)
    os.kill(min(workers), signal.SIGKILL)
    assert process.wait(60) == 1 and "the batch at hand" not in process.stderr.read()


def test_ctrl_c_to_the_whole_group_reaches_no_worker(program):
    process = program("torch")
    workers, everyone = busy(process)
    for pid in workers:
        os.kill(pid, signal.SIGINT)
    assert not until(lambda: bool(workers - set(descendants(process.pid))), 0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130 and gone(everyone)


LOCKED = """
if __name__ == "__main__":
    from toolkit.data.loaders import torch as loaders
    batches = iter(loaders.loader(Collator(), [np.arange(4 * i, 4 * i + 4) for i in range(6)], 0, 2))
    next(batches)
    batches.gi_frame.f_locals["batches"]._workers_done_event._cond.acquire()
    batches.close()
    print("ended", flush=True)
"""


def test_a_worker_that_was_killed_with_a_lock_in_its_hand_does_not_hold_up_the_end(tmp_path):
    """The lock is taken here instead, and never given back."""
    (tmp_path / "program.py").write_text(PROGRAM.partition("def work")[0] + LOCKED)
    command = [sys.executable, str(tmp_path / "program.py"), "torch"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60
    )
    assert done.stdout == "ended\n", done.stderr


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_a_batch_that_cannot_be_made_names_its_example(program, backend):
    process = program(backend, "bad")
    out, told = process.communicate(timeout=300)
    assert process.returncode == 1, told
    assert out == "[0, 1, 2, 3]\n"
    assert told.splitlines()[-1] == (
        "train: ValueError: a picture of no size; the batch at hand: u7. The last checkpoint is whole"
    )
    assert "Traceback" in told and 'raise ValueError("a picture of no size")' in told
