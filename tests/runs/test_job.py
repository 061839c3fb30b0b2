"""State that a run takes over from an earlier one."""

from types import SimpleNamespace

import pytest
import yaml

import toolkit
from toolkit.config import process, schema
from toolkit.data.problems import LISTED, Report
from toolkit.errors import ConfigError, Interrupted, RunError, UserError
from toolkit.runs import job, start
from toolkit.runs.folder import Onlooker, RunFolder
from toolkit.training.progress import Progress


def test_overrides_of_a_sweep_are_not_trained_as_one_run():
    with pytest.raises(ConfigError, match="found overrides of a sweep"):
        toolkit.train(["recipe=asr", "seeds=3"])


@pytest.mark.parametrize("code, error", [(130, Interrupted), (1, RunError)])
def test_exit_codes_of_several_processes_become_errors(tmp_path, monkeypatch, code, error):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "start", lambda run, overrides, folders: code)
    with pytest.raises(error) as caught:
        toolkit.train(["recipe=asr", "trainer.devices=2"])
    assert caught.value.code == code


@pytest.mark.parametrize("call", [toolkit.train, lambda overrides: toolkit.load("a folder", overrides=overrides)])
def test_overrides_in_one_string_are_refused(call):
    with pytest.raises(ConfigError, match=r"overrides: found 'recipe=asr', expected a list: \['recipe=asr'\]"):
        call("recipe=asr")


def test_a_folder_of_ones_own_recipes_reaches_the_run(tmp_path, monkeypatch):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - asr\nseed: 7\n", "utf-8")
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "start", lambda run, overrides, folders: started.append((run.seed, folders)) or 0)
    toolkit.train(["recipe=mine"], config_dir=str(tmp_path))
    assert started == [(7, [tmp_path])]


def test_a_folder_of_ones_own_options_reaches_a_predictor(tmp_path, monkeypatch):
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("# mine\ndefaults: [sgd]\n", "utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(schema.plain(schema.check(["recipe=asr"]))), "utf-8")
    monkeypatch.setattr(process, "prepare", lambda backend: None)
    with pytest.raises(ConfigError, match="optimizer=mine: no such option"):
        toolkit.load(tmp_path / "run", overrides=["optimizer=mine"])
    with pytest.raises(UserError, match="checkpoint"):
        toolkit.load(tmp_path / "run", overrides=["optimizer=mine"], config_dir=str(tmp_path))


def test_the_first_process_alone_takes_over_the_index_of_a_run(tmp_path, monkeypatch):
    def write(*_):
        raise AssertionError("two processes would write at the same time")

    monkeypatch.setattr(job.checkpoint, "point", write)
    monkeypatch.setattr(job.checkpoint, "take_over", write)
    found = SimpleNamespace(path=tmp_path / "checkpoints" / "step-00000002")
    engine = SimpleNamespace(sharded=False)
    job._take_over(engine, found, Progress(step=2), Onlooker(tmp_path))
    job._take_over(engine, found, Progress(step=2), Onlooker(tmp_path / "elsewhere"))
    with pytest.raises(AssertionError, match="two processes"):
        job._take_over(engine, found, Progress(step=2), RunFolder(tmp_path))


def test_everything_that_was_left_out_is_listed_in_the_run_folder(tmp_path, capsys):
    lines = [f"row {i}: empty text" for i in range(LISTED + 3)] + ["\udce4.wav: unreadable"]
    folder = RunFolder(tmp_path)
    job._report(Report({"empty text": len(lines)}, lines), folder)
    assert (tmp_path / "dropped.txt").read_text("utf-8").splitlines() == [*lines[:-1], r"\udce4.wav: unreadable"]
    out = capsys.readouterr().out.splitlines()
    assert len(out) == LISTED + 2 and out[-1] == f"    and 4 more in {tmp_path}/dropped.txt"
    job._report(Report({}, []), folder)
    folder.close()
    assert not (tmp_path / "dropped.txt").exists()
