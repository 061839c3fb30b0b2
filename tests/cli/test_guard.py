"""Endings of a command that no message of its own describes."""

import subprocess
import sys

import pytest

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
