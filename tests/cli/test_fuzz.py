"""Made command lines through the command itself: exit code 0 or 2, a message for 2, and never a traceback."""

import io
import logging
import os
import sys

import pytest
import yaml

from tests.support import fuzz
from toolkit import __main__ as command
from toolkit.config import schema, source
from toolkit.errors import ConfigError
from toolkit.sweeps import plan

COUNT = int(os.environ.get("TOOLKIT_FUZZ", 200))  # command lines
CHUNKS = 4


def stop(*_):
    raise ConfigError("the data would be read now")


@pytest.fixture
def call(monkeypatch, tmp_path):
    """A function that does a command line up to where it would read data, and returns its exit code and messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toolkit.runs.start.start", lambda *_: 0)
    monkeypatch.setattr("toolkit.cli.check.describe", lambda *_: 0)
    monkeypatch.setattr("toolkit.sweeps.driver.run", lambda *words: 0 if plan.check(*words) else 1)
    monkeypatch.setattr("toolkit.sweeps.plan._samples", lambda _: [])  # only the first job is checked, for the time
    monkeypatch.setattr(source.read, "cache_clear", lambda: None)  # the files stay the same
    monkeypatch.setattr("toolkit.config.process.missing", lambda _: None)
    monkeypatch.setattr("toolkit.config.process.hide", lambda _: None)
    monkeypatch.setattr("toolkit.config.process.prepare", lambda _: None)
    monkeypatch.setattr("toolkit.certify.make.RunFolder", stop)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a.wav\n")))
    log = logging.getLogger()
    before = list(log.handlers), log.level

    def call(words):
        output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", how) for how in ("strict", "backslashreplace"))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", output)
            patch.setattr(sys, "stderr", errors)
            code = command.run(words)
            output.flush()
            errors.flush()
            return code, errors.buffer.getvalue().decode()

    yield call
    log.handlers[:], log.level = before  # Hydra configures them


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder without a checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(yaml.safe_dump(schema.plain(schema.check(["recipe=asr"]))))
    return folder


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_command_line_ends_in_a_traceback(call, folder, chunk):
    wrong = []
    for seed in range(chunk, COUNT, CHUNKS):
        words = fuzz.command_line(seed, folder)
        try:
            code, errors = call(words)
        except BaseException as error:
            wrong.append((seed, words, repr(error)))
            continue
        if code not in (0, 2) or "Traceback" in errors or (code == 2 and not errors.strip()):
            wrong.append((seed, words, code, errors[-1500:]))
    assert not wrong, "\n".join(map(repr, wrong))
    assert call(["run", *fuzz.RUNS[0]]) == (0, "")  # the unchanged lines are fine


@pytest.mark.parametrize(
    "words",
    [
        ["run", "recipe=asr", f"optimizer.betas.0={'9' * 400}"],
        ["run", "recipe=asr", f"seed={'9' * 5000}"],
        ["run", "recipe=asr", f"seed={'[' * 1000}"],
        ["run", "recipe=asr", "~optimizer.betas.0"],
        ["run", f"recipe={'x' * 3000}"],
        ["run", f"evaluate={'x' * 3000}"],
        ["run", "recipe=asr", "--config-dir", "x" * 3000],
        ["sweep", "x" * 3000],
        ["sweep", "recipe=asr", "seed=range(0,1,0)"],
        ["sweep", "recipe=asr", "seed=range(0,1000000000000)"],
    ],
)
def test_what_no_key_or_file_can_be_is_a_message(call, words):
    code, errors = call(words)
    assert code == 2 and "Traceback" not in errors and len(errors.splitlines()) <= 5
