"""Bad input through the command line: exit code 2, the message, and nothing trained. No framework is loaded."""

import os
import subprocess
import sys

import pytest

from tests.support import bad_input
from tests.support.refusals import refuse


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return {case.name: case for case in bad_input.make(tmp_path_factory.mktemp("bad"))}


@pytest.fixture(scope="module", params=["torch", pytest.param("tf", marks=pytest.mark.long)])
def outcome(request, cases, tmp_path_factory):
    """Exit code and message by case, the frameworks that were loaded, and the folder of the run folders.

    One process for each backend does them all: a framework is never loaded, so nothing carries over to the next.
    """
    folder = tmp_path_factory.mktemp(request.param)
    fixed = ["recipe=asr", f"backend={request.param}", "dataset=audio_folder"]
    words = [[*fixed, f"dataset.path='{case.path}'", f"run_dir={folder}/{name}"] for name, case in cases.items()]
    refused = refuse(words, folder / "cache")
    return dict(zip(cases, refused.found, strict=True)), refused.loaded, folder


def test_every_kind_is_refused_by_name(outcome, cases):
    found, _, folder = outcome
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
    assert outcome[1] == []


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
