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


@pytest.fixture
def program():
    """Starts a process whose loader has two workers, each of which is busy once the first two batches are there."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.workers.loading", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
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
    assert re.search(r"train: loader worker \d \(process \d+\) was killed by SIGKILL; the batch: ", line)
    assert "u8, u9, u10, u11" in line or "u12, u13, u14, u15" in line
    assert gone(everyone)


def test_of_a_parent_that_was_killed_no_worker_stays_behind(program):
    process = program("torch")
    _, everyone = busy(process)
    process.kill()
    assert gone(everyone)


@pytest.mark.long
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
    assert process.wait(60) == 1 and "the batch: " not in process.stderr.read()


def test_ctrl_c_to_the_whole_group_reaches_no_worker(program):
    process = program("torch")
    workers, everyone = busy(process)
    for pid in workers:
        os.kill(pid, signal.SIGINT)
    assert not until(lambda: bool(workers - set(descendants(process.pid))), 0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130 and gone(everyone)


@pytest.mark.long
def test_a_worker_that_was_killed_with_a_lock_in_its_hand_does_not_hold_up_the_end(program):
    """The lock is taken by the program instead, and never given back."""
    out, told = program("torch", "locked").communicate(timeout=60)
    assert out == "ended\n", told


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_a_batch_that_cannot_be_made_names_its_example(program, backend):
    process = program(backend, "bad")
    out, told = process.communicate(timeout=300)
    assert process.returncode == 1, told
    assert out == "[0, 1, 2, 3]\n"
    assert told.splitlines()[-1] == (
        "train: ValueError: an image of no size; the batch: u7. The last checkpoint is intact"
    )
    assert "Traceback" in told and 'raise ValueError("an image of no size")' in told
