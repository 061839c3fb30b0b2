"""Endings of a command that no message of its own describes."""

import os
import subprocess
import sys

import pytest

from tests.support import made
from tests.support.backend import ROOT
from toolkit.config import compose
from toolkit.errors import ConfigError, room

PRINTS = """
import sys
from toolkit.cli.guard import guarded
def work():
    for _ in range(100_000):
        print("an answer")
    return 0
sys.exit(guarded(work))
"""
TRAINS = """
import sys, time
from pathlib import Path
from toolkit.cli.guard import guarded
from toolkit.runs.folder import RunFolder
def work():
    folder = RunFolder(Path(sys.argv[1]))
    for step in range(5):
        folder.say(f"step {step}")
        time.sleep(0.3)
    return 0
sys.exit(guarded(work))
"""


def test_a_reader_that_ends_early_ends_a_command_quietly():
    command = f"{sys.executable} -c '{PRINTS}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("an answer\n141\n", "")


def test_a_run_goes_on_without_its_reader_and_keeps_its_log(tmp_path):
    command = f"{sys.executable} -c '{TRAINS}' {tmp_path} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("step 0\n0\n", "")
    assert (tmp_path / "run.log").read_text().splitlines() == [f"step {n}" for n in range(5)]


def test_a_name_that_is_too_long_is_a_line(tmp_path):
    assert room(tmp_path / ("x" * 300)).endswith("bytes are free")
    with pytest.raises(ConfigError, match="xxx is not a folder, expected a run folder"):
        compose.earlier(tmp_path / ("x" * 300))


STUB = """
import sys
from tests.workers import stub_job
from toolkit import __main__
measure = stub_job.measure
def speak(*facts):
    for stream in (sys.stdout, sys.stderr):
        print("a line", file=stream, flush=True)
    measure(*facts)
stub_job.measure = speak
stub_job.install()
__main__.main()
"""


def closed(words, folder, **streams):
    """Run a command whose reader has ended before it starts; return the process."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-c", STUB, *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=300,
            text=True,
            **{name: writer if stream is None else stream for name, stream in streams.items()},
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["run", "recipe=asr", "--cfg", "job"]])
def test_what_only_prints_ends_quietly_without_a_reader(words, tmp_path):
    done = closed(words, tmp_path, stdout=None, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_check_of_the_data_ends_quietly_without_a_reader(tmp_path):
    data = made.tone_folder(tmp_path / "data")
    words = ["run", "recipe=asr", "dataset=audio_folder", f"dataset.path='{data}'", "check=true"]
    done = closed(words, tmp_path, stdout=None, stderr=subprocess.PIPE)
    assert done.returncode == 141 and "Error" not in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.glob("outputs/checks/asr/*/check.html"))


@pytest.mark.parametrize("streams", [{"stdout": None, "stderr": None}, {"stderr": None, "stdout": subprocess.DEVNULL}])
def test_a_training_goes_on_without_its_readers(tmp_path, streams):
    done = closed(["run", "recipe=asr", "seed=7", "run_dir=r"], tmp_path, **streams)
    assert done.returncode == 0
    assert (tmp_path / "r" / "results.json").exists()
    assert closed(["run", "recipe=asr", "seed=1", "run_dir=s"], tmp_path, **streams).returncode == 1
