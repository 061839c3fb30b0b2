"""A trained run in use: ``toolkit predict`` and ``evaluate=``, on every kind of data and with either backend."""

import json
import shutil

import pytest

from tests.support import made
from tests.support.backend import BACKENDS
from tests.support.trained import RECIPES, data_of

INPUTS = {"speech": "test/*.wav", "images": "test/*/*.png"}
LONGER = ["trainer.max_steps=200", "optimizer.lr=1e-2"]  # with fewer steps, every translation is empty


@pytest.fixture(params=sorted(made.FOLDERS))
def run(request, trained):
    """``(name of the data, data folder, run folder)`` of a short torch run."""
    recipe = [recipe for recipe in RECIPES if data_of(recipe) == request.param][-1]
    if request.param == "translation":
        folder = trained.run(recipe, "torch", *LONGER, backends=["torch"])
    else:
        folder = trained.run(recipe, "torch")
    return request.param, trained.data(request.param), folder


@pytest.fixture
def predict(backends):
    """A function that does what ``toolkit predict`` does, and returns what it printed."""

    def predict(*arguments, backend="torch", **options):
        return backends[backend].run("toolkit", "predict", *arguments, **options)

    return predict


@pytest.fixture
def lines(tmp_path):
    """A file of lines to translate."""
    file = tmp_path / "lines.txt"
    file.write_text("ab ba\ncab\n", encoding="utf-8")
    return file


def test_both_backends_answer_alike_and_in_order(run, predict, lines):
    kind, data, folder = run
    inputs = [lines] if kind == "translation" else sorted(data.glob(INPUTS[kind]))[::-1]
    answers = [predict(folder, f"backend={backend}", *inputs, backend=backend).stdout for backend in BACKENDS]
    assert answers[0] == answers[1]
    rows = answers[0].splitlines()
    if kind == "translation":
        assert len(rows) == 2 and all(rows)
    else:
        assert [row.split("\t")[0] for row in rows] == [str(file) for file in inputs]


def test_what_it_says_is_what_the_evaluation_found(run, predict):
    kind, data, folder = run
    rows = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    if kind == "translation":
        first = (data / "test.tsv").read_text().splitlines()[1].split("\t")[0]
        found = json.loads(predict(folder, "--json", "--", first).stdout)
        assert set(found) == {"id", "hypothesis", "score"}
        assert found["hypothesis"] == rows[0]["hypothesis"] and found["score"] == pytest.approx(rows[0]["score"])
    else:
        file = next(data.glob("test/**/0.*"))
        found = json.loads(predict(folder, "--json", file).stdout)
        row = next(row for row in rows if row["id"].endswith(file.name) or row["id"].endswith(file.stem))
        assert found["hypothesis"] == row["hypothesis"] and found["score"] == pytest.approx(row["score"], rel=1e-5)
        assert "reference" not in found


def test_lines_come_from_standard_input_too(run, predict, lines):
    kind, _, folder = run
    if kind == "translation":
        whole = predict(folder, lines).stdout
        assert predict(folder, "-", input="ab ba\ncab\n").stdout == whole
        assert predict(folder, "ab ba", "cab").stdout == whole
        spaced = predict(folder, "--json", "-", input="\nab ba\n \ncab\n\n").stdout
        rows = [json.loads(line) for line in spaced.splitlines()]
        assert [row["id"] for row in rows] == [f"standard input, line {n}" for n in range(1, 6)]
        assert "".join(row["hypothesis"] + "\n" for row in rows) == "\n{}\n\n{}\n\n".format(*whole.splitlines())
        assert predict(folder, "-", input="\n\n").stdout == "\n\n"
        assert predict(folder, "-", input="").stdout == ""
    else:
        refused = predict(folder, "-", code=2, input="")
        assert "-" in refused.stderr and refused.stdout == ""


def test_a_run_folder_may_have_any_name(run, predict, tmp_path):
    kind, _, folder = run
    odd = tmp_path / "it's a=b, c (2)"
    shutil.copytree(folder, odd)
    if kind == "translation":
        assert predict(odd, "").stdout == "\n"
    else:
        assert "gone.file" in predict(odd, "gone.file", code=2).stderr


@pytest.mark.parametrize("run", ["images", "speech"], indirect=True)  # for translation such an input is a line
def test_inputs_that_are_no_files_are_named(run, predict, tmp_path):
    kind, _, folder = run
    done = predict(folder, "gone.file", tmp_path, code=2, cwd=tmp_path)
    noun = {"speech": "recording", "images": "image"}[kind]
    gone, empty = done.stderr.splitlines()[-2:]
    where = tmp_path / "gone.file"
    assert gone == f"not answered: gone.file: no such file: found nothing at {where}, expected a file with the {noun}"
    assert empty.startswith(f"not answered: {tmp_path}: no file: found a folder without a file for a {noun}, expected")
    assert done.stdout == f"gone.file\t\n{tmp_path}\t\n"


def test_bad_inputs_are_named_and_leave_empty_lines(run, predict, lines, tmp_path):
    kind, data, folder = run
    good = lines if kind == "translation" else sorted(data.glob(INPUTS[kind]))[0]
    bad = [tmp_path / "bad_1", tmp_path / "bad_2"]
    for file in bad:
        file.write_bytes(b"\x00\xff no such thing")
    blank = ["\n" if kind == "translation" else f"{file}\t\n" for file in bad]
    expected = predict(folder, good).stdout.join(blank)
    done = predict(folder, bad[0], good, bad[1], code=2)
    assert done.stdout == expected
    assert [line.split(":")[0] for line in done.stderr.splitlines()[-2:]] == ["not answered"] * 2
    assert all(file.name in done.stderr for file in bad)
    refused = predict(folder, "dataset.on_bad=refuse", bad[0], good, bad[1], code=2)
    assert refused.stdout == "" and all(file.name in refused.stderr for file in bad)


def test_an_earlier_run_is_measured_on_any_split_and_data(run, backends, tmp_path):
    kind, _, folder = run
    before = json.loads((folder / "results.json").read_text())["metrics"]
    cache = {"TOOLKIT_CACHE": str(tmp_path / "cache")}
    words = [f"evaluate={folder}", "dataset.split=validation", "backend=tf", f"run_dir={tmp_path / 'a'}"]
    backends["tf"].run("toolkit.run", *words, env=cache)
    found = json.loads((tmp_path / "a" / "results.json").read_text())["metrics"]
    assert found == {"validation": pytest.approx(before["validation"], rel=1e-4)}
    other = made.FOLDERS[kind][1](tmp_path / "other", train=3, validation=2, test=4)
    words = [f"evaluate={folder}", f"dataset.path={other}", f"run_dir={tmp_path / 'b'}"]
    backends["torch"].run("toolkit.run", *words, env=cache)
    assert len((tmp_path / "b" / "predictions" / "test.jsonl").read_text().splitlines()) == 4
    refused = backends["torch"].run("toolkit.run", f"evaluate={folder}", f"run_dir={folder}", env=cache, code=2)
    assert f"run_dir: {folder} holds a run" in refused.stderr


@pytest.mark.parametrize("backend", [pytest.param("torch", marks=pytest.mark.long), "tf"])
def test_a_run_answers_alike_with_another_optimizer(trained, backends, predict, tmp_path, backend):
    folder = trained.run("asr", backend)  # with AdamW, whose moments SGD does not keep
    cache = {"TOOLKIT_CACHE": str(tmp_path / "cache")}
    words = [f"evaluate={folder}", "optimizer=sgd", f"run_dir={tmp_path / 'run'}"]
    backends[backend].run("toolkit.run", *words, env=cache)
    found, before = (json.loads((path / "results.json").read_text()) for path in (tmp_path / "run", folder))
    assert found["metrics"] == before["metrics"]
    file = sorted(trained.data("speech").glob(INPUTS["speech"]))[0]
    answers = [predict(folder, *more, file, backend=backend).stdout for more in (["optimizer=sgd"], [])]
    assert answers[0] == answers[1]


def test_usage(predict):
    assert predict().stdout == predict("--help").stdout == predict("run", "--help").stdout
    assert "RUN_FOLDER" in predict().stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere", "x.wav"], "nowhere is not a folder, expected a run folder\n"),
        ([".", "x.wav"], ". has no config.yaml, expected a run folder\n"),
        (["."], "no input"),
        ([".", "--jsn", "x.wav"], "--jsn: unknown flag"),
        ([".", "backnd=tf", "x.wav"], "; an input like this goes behind --; did you mean 'backend'?"),
        (
            [".", "taks.decoder=beam"],
            "taks.decoder=beam: unknown key; an input like this goes behind --; did you mean 'task'?",
        ),
    ],
)
def test_bad_arguments(arguments, message, predict, tmp_path):
    stderr = predict(*arguments, code=2, cwd=tmp_path).stderr
    assert message in stderr and "evaluate" not in stderr
