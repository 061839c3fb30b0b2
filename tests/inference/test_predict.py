"""A trained run in use: ``toolkit predict`` and ``evaluate=``, in every domain and with either backend."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.support import made, tiny
from tests.test_discovery import BACKENDS, RECIPES, domain

DOMAINS = {domain(recipe): recipe for recipe in RECIPES}
INPUTS = {"speech": "test/*.wav", "images": "test/*/*.png", "translation": "lines.txt"}
LONGER = {"translation": ["trainer.max_steps=200", "optimizer.lr=1e-2"]}  # with fewer, every translation is empty


def call(verb, *arguments, code=0, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", **options.pop("env", {})}
    command = [sys.executable, "-m", "toolkit", verb, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module", params=sorted(made.FOLDERS))
def trained(request, tmp_path_factory):
    """``(domain, data folder, run folder)`` of a short torch run."""
    here = tmp_path_factory.mktemp(request.param)
    option, make = made.FOLDERS[request.param]
    data = make(here / "data")
    arguments = [f"recipe={DOMAINS[request.param]}", f"dataset={option}", f"dataset.path={data}"]
    arguments += [*tiny.components(*arguments), *tiny.SHORT, *LONGER.get(request.param, [])]
    arguments += [f"run_dir={here / 'run'}", "backend=torch"]
    call("run", *arguments, env={"TOOLKIT_CACHE": str(here / "cache")})
    (data / "lines.txt").write_text("ab ba\ncab\n", encoding="utf-8")
    return request.param, data, here / "run"


def test_both_backends_answer_alike_and_in_order(trained):
    kind, data, run = trained
    inputs = sorted(data.glob(INPUTS[kind]))[::-1]
    answers = [call("predict", run, f"backend={backend}", *inputs).stdout for backend in BACKENDS]
    assert answers[0] == answers[1]
    lines = answers[0].splitlines()
    if kind == "translation":
        assert len(lines) == 2 and all(lines)
    else:
        assert [line.split("\t")[0] for line in lines] == [str(file) for file in inputs]


def test_what_it_says_is_what_the_evaluation_found(trained):
    kind, data, run = trained
    rows = [json.loads(line) for line in (run / "predictions" / "test.jsonl").read_text().splitlines()]
    if kind == "translation":
        first = (data / "test.tsv").read_text().splitlines()[1].split("\t")[0]
        found = json.loads(call("predict", run, "--json", "--", first).stdout)
        assert set(found) == {"id", "hypothesis", "score"}
        assert found["hypothesis"] == rows[0]["hypothesis"] and found["score"] == pytest.approx(rows[0]["score"])
    else:
        file = next(data.glob("test/**/0.*"))
        found = json.loads(call("predict", run, "--json", file).stdout)
        row = next(row for row in rows if row["id"].endswith(file.name) or row["id"].endswith(file.stem))
        assert found["hypothesis"] == row["hypothesis"] and found["score"] == pytest.approx(row["score"], rel=1e-5)
        assert "reference" not in found


def test_lines_come_from_standard_input_too(trained):
    kind, data, run = trained
    if kind == "translation":
        whole = call("predict", run, data / "lines.txt").stdout
        assert call("predict", run, "-", input="ab ba\ncab\n").stdout == whole
        assert call("predict", run, "ab ba", "cab").stdout == whole
        spaced = call("predict", run, "--json", "-", input="\nab ba\n \ncab\n\n").stdout
        rows = [json.loads(line) for line in spaced.splitlines()]
        assert [row["id"] for row in rows] == [f"standard input, line {n}" for n in range(1, 6)]
        assert "".join(row["hypothesis"] + "\n" for row in rows) == "\n{}\n\n{}\n\n".format(*whole.splitlines())
        assert call("predict", run, "-", input="\n\n").stdout == "\n\n"
        assert call("predict", run, "-", input="").stdout == ""
    else:
        refused = call("predict", run, "-", code=2, input="")
        assert "-" in refused.stderr and refused.stdout == ""


def test_a_run_folder_may_have_any_name(trained, tmp_path):
    kind, _, run = trained
    folder = tmp_path / "it's a=b, c (2)"
    shutil.copytree(run, folder)
    if kind == "translation":
        assert call("predict", folder, "").stdout == "\n"
    else:
        assert "gone.file" in call("predict", folder, "gone.file", code=2).stderr


def test_bad_inputs_are_all_named_or_left_out(trained):
    kind, data, run = trained
    good = data / "lines.txt" if kind == "translation" else sorted(data.glob(INPUTS[kind]))[0]
    bad = [data / "bad_1", data / "bad_2"]
    for file in bad:
        file.write_bytes(b"\x00\xff no such thing")
    refused = call("predict", run, bad[0], good, bad[1], code=2)
    assert refused.stdout == "" and all(file.name in refused.stderr for file in bad)
    kept = call("predict", run, "dataset.on_bad=drop", bad[0], good, bad[1])
    assert kept.stdout == call("predict", run, good).stdout
    assert all(file.name in kept.stderr for file in bad)


def test_an_earlier_run_is_measured_on_any_split_and_data(trained, tmp_path):
    kind, _, run = trained
    before = json.loads((run / "results.json").read_text())["metrics"]
    cache = {"TOOLKIT_CACHE": str(tmp_path / "cache")}
    call("run", f"evaluate={run}", "dataset.split=validation", "backend=tf", f"run_dir={tmp_path / 'a'}", env=cache)
    found = json.loads((tmp_path / "a" / "results.json").read_text())["metrics"]
    assert found == {"validation": pytest.approx(before["validation"], rel=1e-4)}
    other = made.FOLDERS[kind][1](tmp_path / "other", train=3, validation=2, test=4)
    call("run", f"evaluate={run}", f"dataset.path={other}", f"run_dir={tmp_path / 'b'}", env=cache)
    assert len((tmp_path / "b" / "predictions" / "test.jsonl").read_text().splitlines()) == 4


def test_usage():
    assert call("predict").stdout == call("predict", "--help").stdout
    assert "RUN_FOLDER" in call("predict").stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere", "x.wav"], "nowhere is not a folder"),
        (["."], "no input"),
        ([".", "--jsn", "x.wav"], "--jsn: no such flag"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    assert message in call("predict", *arguments, code=2, cwd=tmp_path).stderr
