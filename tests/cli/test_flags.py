"""Flags of ``toolkit run``: which there are, and one line for each that is wrong."""

import logging
from pathlib import Path

import pytest

from toolkit.cli import run
from toolkit.cli.flags import parse
from toolkit.errors import ConfigError

INFO = "one of all, config, defaults, defaults-tree, plugins, searchpath"


@pytest.fixture
def command(capsys, monkeypatch):
    """A function that runs the command in this process and returns its exit code, output and errors; no run starts."""
    monkeypatch.setattr("toolkit.runs.start.start", lambda *_: pytest.fail("a run started"))
    log = logging.getLogger()
    before = list(log.handlers), log.level
    yield lambda *words: (run.main(words), *capsys.readouterr())
    log.handlers[:], log.level = before  # Hydra configures them


def test_flags_stand_anywhere_and_have_short_forms():
    flags = parse(["-c", "job", "recipe=asr", "-p=model", "seed=1", "--resolve", "-cd", "a", "--config-dir=b"])
    assert flags.overrides == ["recipe=asr", "seed=1"]
    assert flags.values == {"--cfg": "job", "--package": "model", "--resolve": "", "--config-dir": "b"}
    assert flags.folders == [Path("a"), Path("b")]
    assert parse(["--", "-m"]).overrides == ["-m"]


@pytest.mark.parametrize(
    "rest, value", [([], "all"), (["recipe=asr"], "all"), (["-m"], "all"), (["plugins"], "plugins")]
)
def test_information_takes_a_value_or_none(rest, value):
    assert parse(["--info", *rest]).values["--info"] == value


@pytest.mark.parametrize(
    "words, line",
    [
        ("--resolve", "--resolve: not supported without --cfg; add --cfg job"),
        ("--package model", "--package: not supported without --cfg; add --cfg job"),
        ("--cfg", "--cfg: not given, expected one of job, hydra, all"),
        ("--cfg=", "--cfg: not given, expected one of job, hydra, all"),
        ("--cfg --resolve", "--cfg: not given, expected one of job, hydra, all"),
        ("--cfg jobs", "--cfg: found 'jobs', expected one of job, hydra, all"),
        ("--info foo", f"--info: found 'foo', expected {INFO}"),
        ("--info=", f"--info: not given, expected {INFO}"),
        ("--cfg job --info", "--info: not supported with --cfg; set one of them"),
        ("--config-dir", "--config-dir: not given, expected a folder"),
        ("--config-dir=", "--config-dir: not given, expected a folder"),
        ("--multirun=yes", "--multirun: found 'yes', expected no value"),
        ("--run -m", "--run: not supported with -m; set one of them"),
        ("--resolv", "--resolv: unknown flag; did you mean --resolve?"),
        ("-x", "-x: unknown flag; --help lists them"),
        ("--config-name=x", "--config-name: not supported; use recipe=NAME"),
    ],
)
def test_a_wrong_flag_is_one_line(words, line):
    with pytest.raises(ConfigError) as caught:
        parse(["recipe=asr", *words.split()])
    assert caught.value.problems == [line]


@pytest.mark.parametrize(
    "words, line",
    [
        ("recipe=asr --resolve", "--resolve: not supported without --cfg; add --cfg job"),
        ("recipe=asr --cfg job -p modle", "package 'modle' not found in config"),
        ("recipe=asr --shell-completion", "Expecting one subcommand from ['install', 'uninstall', 'query'] to be set"),
        ("recipe=asr allow=1", "allow: found 1, expected a list, each element text"),
        (
            "recipe=asr allow=[a] ++allow.0=b",
            "allow: found a change to a part of it, expected the whole list, allow=[...]",
        ),
        (
            "recipe=asr seed=0,1 --info",
            "seed=0,1: several values; add -m for one run per value, or write a list [a,b]",
        ),
    ],
)
def test_what_cannot_be_shown_or_run_is_one_line(command, words, line):
    code, output, errors = command(*words.split())
    assert (code, output) == (2, "")
    assert errors.removeprefix("the config cannot be run:\n").strip() == line


@pytest.mark.parametrize(
    "words", [["--hydra-help"], ["recipe=asr", "--hydra-help"], ["--info", "plugins"], ["--version"]]
)
def test_what_needs_no_config_is_shown_without_one(command, words):
    code, output, errors = command(*words)
    assert (code, errors) == (0, "") and ("Hydra" in output or output == "toolkit 0.1.0\n")
