"""Paths in a config: one rule for every field, whatever the name of the folder."""

import shlex
from pathlib import Path

import pytest

from tests.support.configs import OWN, PLAIN, check, refused, write
from toolkit.cli import sweep
from toolkit.config import compose, paths, schema
from toolkit.config.overrides import literal, parse, shown
from toolkit.data import pipeline

NAMES = [
    "a b",
    "é",
    "語",
    "a=b",
    "a,b",
    "a, b (c)",
    "a(b)",
    "#1",
    "it's",
    'say "a"',
    "a\\",
    "[x]",
    "a;b",
    "2024_01",
    "~x",
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder of the user, and another working directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home", "run/config.yaml", (OWN / "recipe/plain.yaml").read_text("utf-8"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.mark.parametrize("key", ["run_dir", "dataset.path"])
def test_the_home_folder_is_expanded_in_the_config(home, key):
    run = check(f"{key}='~/x'", "dataset=audio_folder", *([] if key == "dataset.path" else ["dataset.path=x"]))
    assert (run.run_dir if key == "run_dir" else run.dataset.path) == str(home / "x")
    assert schema.resolve(schema.plain(run)).dataset.path == run.dataset.path


def test_a_repository_may_be_a_folder(home):
    assert check("dataset=librispeech", "dataset.repository='~/x'").dataset.repository == str(home / "x")
    assert check("dataset=librispeech").dataset.repository == "openslr/librispeech_asr"


@pytest.mark.parametrize("key", ["resume", "evaluate"])
def test_the_home_folder_is_expanded_where_a_run_is_named(home, key):
    write(home, "old/config.yaml", "{}")
    assert refused(f"{key}='~/none'")[0] == f"{key}: {home}/none is not a folder, expected a run folder"
    compose.prepare([f"{key}='~/old'"])
    assert compose.source.request.base_file == str(home / "old/config.yaml")


def test_the_home_folder_is_expanded_outside_of_configs(home, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", "~/cache")
    assert pipeline.cache_folder() == home / "cache"
    write(home, "conf/recipe/mine.yaml", f"# @package _global_\ndefaults:\n  - {PLAIN.partition('=')[2]}\nseed: 7\n")
    assert schema.check(["recipe=mine"], [Path("~/conf"), OWN]).seed == 7


def test_the_folder_of_a_sweep_is_expanded(home, capsys):
    assert sweep.main(["~/none"]) == 2
    assert f"{home}/none: has no " in capsys.readouterr().err


@pytest.mark.parametrize("key, value", [("run_dir", ""), ("run_dir", "' '"), ("dataset.path", "")])
def test_an_empty_path_is_refused(key, value):
    given = [] if key == "dataset.path" else ["dataset.path=x"]
    assert refused(PLAIN, "dataset=audio_folder", *given, f"{key}={value}") == [
        f"{key}: found an empty path, expected a folder; set {key}=FOLDER, or leave it out"
    ]


def test_a_user_who_does_not_exist_makes_no_folder_of_that_name():
    assert refused(PLAIN, "run_dir='~no_such_user/x'") == [
        "run_dir: found '~no_such_user/x', expected the name of a user after ~, or './~no_such_user/x'"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_as_it_stands_or_its_quoted_form_is_shown(name):
    path, problems = f"data/{name}", []
    overrides = parse([f"run_dir={path}"], problems)
    if problems:
        overrides = parse(shlex.split(problems[0].partition("; write ")[2]), [])
    elif overrides[0].is_sweep_override():
        overrides = parse(shlex.split(shown(literal(f"run_dir={path}"))), [])
    assert [override.value() for override in overrides] == [path]


@pytest.mark.parametrize("name", [*NAMES, 'a\\"b', '"', "\\\\", "a\\b"])
def test_any_text_can_be_quoted(name):
    assert [override.value() for override in parse([f"run_dir={paths.quoted(name)}"], [])] == [name]


def test_a_path_that_needs_quotes_is_the_only_problem():
    assert refused(PLAIN, "dataset=audio_folder", "dataset.path=/data/a, b (c)") == [
        "dataset.path=/data/a, b (c): the path needs quotes; write 'dataset.path=\"/data/a, b (c)\"'"
    ]


@pytest.mark.parametrize("name", ["2024_01", "1.50", "1e5", "007", "true"])
def test_a_number_is_the_name_of_a_folder(name):
    assert [override.value() for override in parse([f"run_dir={name}"], [])] == [name]


@pytest.mark.parametrize(
    "value, line",
    [
        ("a/é", "run_dir=a/é: the path needs quotes; write 'run_dir=\"a/é\"'"),
        ("[a]", "run_dir=[a]: found a list, expected one path; for that name, write 'run_dir=\"[a]\"'"),
    ],
)
def test_the_quoted_form_is_in_one_line(value, line):
    problems = []
    assert [override.value() for override in parse([f"run_dir={value}"], problems)] == [value]
    assert problems == [line]


def test_a_comma_is_named_with_both_ways_to_write_it():
    assert refused(PLAIN, "run_dir=a,b") == [
        "run_dir=a,b: several values; add -m for one run per value, or for one path with a comma, write "
        "'run_dir=\"a,b\"'"
    ]


def test_one_path_with_a_comma_is_no_sweep(tmp_path):
    (tmp_path / "a,b").mkdir()
    problems = []
    fixed, axes = compose.axes([f"dataset.path={tmp_path}/a,b", f"dataset.path={tmp_path}/a,{tmp_path}/c"], problems)
    assert not fixed and [axis.values for axis in axes] == [(f"{tmp_path}/a", f"{tmp_path}/c")]
    assert problems == [
        f"dataset.path={tmp_path}/a,b: found several values, expected one path; a path with a comma needs quotes; "
        f"write 'dataset.path=\"{tmp_path}/a,b\"'"
    ]
