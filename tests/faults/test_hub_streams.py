"""A data set of each domain, streamed from a stand-in of the hub by the real command, which is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.backend import ROOT, SETTINGS
from tests.support.hub_layouts import learnable
from tests.support.hub_server import TOKEN, Hub

from .runs import differences, log, newest, taken, until

# data set -> recipe, backend and overrides
RUNS = {
    "librispeech": ("asr", "torch", ["model=bilstm_ctc", "task.decoder=greedy"]),
    "wmt14": ("translation", "tf", ["task.decoder=greedy"]),
    "imagenet": ("image_classification", "torch", ["dataset.size=16", "features.crop=pad"]),
}
KILLS = (3, 8)  # steps after which the process is killed
STEPS = 12


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub(learnable()) as hub:
        yield hub


def begin(dataset: str, hub: Hub, work: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Begin a run, or resume it if the folder has a checkpoint."""
    recipe, backend, own = RUNS[dataset]
    fixed = [f"recipe={recipe}", f"backend={backend}", f"dataset={dataset}", *own]
    stream = ["dataset.streaming=true", "dataset.pool=8", "dataset.lanes=2"]
    short = [*tiny.SHORT, f"trainer.max_steps={STEPS}", "trainer.batch_examples=3", "trainer.checkpoint_every=1"]
    words = [*fixed, *tiny.components(*fixed), *short, *stream, f"run_dir={folder}", "resume=auto"]
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(work / "hf"),
        "HF_TOKEN": TOKEN,
        "TOOLKIT_CACHE": str(work / "cache"),
    }
    with open(work / "console.log", "ab") as output:
        command = [sys.executable, "-m", "toolkit.run", *words]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | SETTINGS | settings, stdout=output, stderr=output)


@pytest.mark.long
@pytest.mark.timeout(1800)  # four processes that each import a framework
@pytest.mark.parametrize("dataset", RUNS)
def test_a_killed_stream_of_the_hub_ends_equal_to_an_undisturbed_one(dataset: str, hub: Hub, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    console = tmp_path / "console.log"
    assert begin(dataset, hub, tmp_path, whole).wait(600) == 0, console.read_text()
    for steps in KILLS:
        hub.forget()
        shards = [name for files in hub.repositories.values() for name in files.branches["main"] if "train" in name]
        hub.faults.breaks |= {name: deque([100]) for name in shards}  # each connection breaks once
        process = begin(dataset, hub, tmp_path, killed)
        assert until(lambda: taken(killed) >= steps or process.poll() is not None, 500)  # noqa: B023
        process.kill()
        assert process.wait() == -signal.SIGKILL, console.read_text()
        assert 0 < newest(killed) < STEPS
        assert any(request.range for request in hub.contents())
    assert begin(dataset, hub, tmp_path, killed).wait(600) == 0, console.read_text()
    rows = [row for row in log(killed / "metrics.jsonl") if row["split"] == "train"]
    assert len(rows) == STEPS and rows == [row for row in log(whole / "metrics.jsonl") if row["split"] == "train"]
    assert differences(killed, whole) == []
