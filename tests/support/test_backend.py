"""The servers that import a framework once for many tests."""

import json
import os
import signal
import time

import numpy as np
import pytest

from tests.support.backend import BACKENDS


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_job_is_a_process_of_its_own_with_its_framework(backends, backend, tmp_path, monkeypatch):
    monkeypatch.setenv("SET_BY_THE_TEST", "1")
    arguments = ["a", "b c"]
    first, second = (
        backends[backend].run("tests.workers.probe", *arguments, cwd=tmp_path, env={"MORE": "2"}, input="given\n")
        for _ in range(2)
    )
    found, again = json.loads(first.stdout), json.loads(second.stdout)
    assert found["arguments"] == arguments and found["cwd"] == str(tmp_path) and found["input"] == "given\n"
    assert found["environment"] == ["1", "2"] and found["name"] == "__main__"
    assert found["frameworks"] == [{"torch": "torch", "tf": "tensorflow"}[backend]]
    assert found["pid"] not in (again["pid"], os.getpid()) and found["calls"] == again["calls"] == 1


def test_a_failure_is_shown_and_its_exit_code_is_that_of_a_program(backends):
    with pytest.raises(AssertionError, match=r"exit code 1:[\s\S]*Traceback[\s\S]*ZeroDivisionError"):
        backends["torch"].run("tests.workers.probe", "divide")
    assert backends["torch"].run("tests.workers.probe", "exit", code=7).returncode == 7
    with pytest.raises(AssertionError, match="exit code -9"):
        backends["torch"].run("tests.workers.probe", "kill")


def test_jobs_overlap_and_can_be_signalled(backends):
    jobs = [backends["torch"].start("tests.workers.probe", "wait") for _ in range(2)]
    assert [job.poll() for job in jobs] == [None, None]
    for job in jobs:
        job.send_signal(signal.SIGTERM)
    assert [job.wait() for job in jobs] == [-signal.SIGTERM] * 2
    assert [job.poll() for job in jobs] == [-signal.SIGTERM] * 2


def test_a_job_that_takes_too_long_is_killed(backends):
    job = backends["torch"].start("tests.workers.probe", "wait")
    with pytest.raises(AssertionError, match=r"runs longer than 0\.2 s"):
        job.wait(0.2)
    end = time.monotonic() + 10
    while (code := job.poll()) is None and time.monotonic() < end:
        time.sleep(0.01)
    assert code == -signal.SIGKILL


def test_functions_take_and_return_arrays(backends):
    found = backends.compute("doubled", "compute", {"a": np.arange(3.0), "b/c": np.array([[1, 2]])})
    for arrays in found.values():
        assert arrays["a"].tolist() == [0, 2, 4] and arrays["b/c"].tolist() == [[2, 4]]
