"""Bad input through the command line, on both backends: exit code 2, the message, and nothing trained."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import bad_input

BACKENDS = ("torch", "tf")
# one process a backend does them all: a framework is never loaded, so nothing carries over from one to the next
WORKER = """
import contextlib, io, json, sys
from toolkit import run
backend, out, *cases = sys.argv[1:]
found = {}
for case in cases:
    name, path = case.split("=", 1)
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        code = run.run(["recipe=asr", f"backend={backend}", "dataset=audio_folder", f"dataset.path='{path}'",
                        f"run_dir={out}/{name}"])
    found[name] = [code, error.getvalue()]
loaded = sorted({"torch", "tensorflow", "lightning", "keras"} & sys.modules.keys())
print(json.dumps({"found": found, "loaded": loaded}))
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return {case.name: case for case in bad_input.make(tmp_path_factory.mktemp("bad"))}


@pytest.fixture(scope="module", params=BACKENDS)
def outcome(request, cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    named = [f"{name}={case.path}" for name, case in cases.items()]
    done = subprocess.run(
        [sys.executable, "-c", WORKER, request.param, str(folder), *named],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"TOOLKIT_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


def test_every_kind_is_refused_by_name(outcome, cases):
    found, folder = outcome[0]["found"], outcome[1]
    assert len(found) == len(cases) >= 20
    for name, case in cases.items():
        code, text = found[name]
        assert code == 2, (name, text)
        assert "Traceback" not in text, (name, text)
        for fragment in case.fragments:
            assert fragment in text, (name, fragment, text)
        assert not (folder / name / "checkpoints").exists()
        assert not (folder / name / "results.json").exists()


def test_no_framework_was_loaded_before_the_data_was_known_good(outcome):
    assert outcome[0]["loaded"] == []


def test_the_process_exits_with_two(cases, tmp_path):
    case = next(iter(cases.values()))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "toolkit.run",
            "recipe=asr",
            "dataset=audio_folder",
            f"dataset.path='{case.path}'",
            f"run_dir={tmp_path / 'run'}",
        ],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"TOOLKIT_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 2
    assert all(fragment in done.stderr for fragment in case.fragments)
