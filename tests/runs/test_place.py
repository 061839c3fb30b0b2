"""The name of a run folder, and what a run that is refused leaves there."""

from pathlib import Path

import pytest

import toolkit
from tests.support.configs import check, write
from toolkit.errors import ConfigError, DataError
from toolkit.runs import place, start
from toolkit.runs.place import claimed
from toolkit.sweeps import plan


@pytest.fixture(scope="module")
def run():
    return check("run_dir=outputs/12-00-00")


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """A working directory of the test."""
    monkeypatch.chdir(tmp_path)


def test_runs_of_the_same_second_have_folders_of_their_own(run):
    with claimed(run, []) as first, claimed(run, ["seed=1"]) as second, claimed(run, []) as third:
        names = [Path(claim.run.run_dir).name for claim in (first, second, third)]
    assert names == ["12-00-00", "12-00-00_2", "12-00-00_3"]
    assert sorted(folder.name for folder in Path("outputs").iterdir()) == names


def test_a_folder_that_is_named_keeps_its_name(run):
    Path(run.run_dir).mkdir(parents=True)
    with claimed(run, [f"run_dir={run.run_dir}"]) as claim:
        assert claim.run == run and claim.made == []


@pytest.mark.parametrize("named", [[], ["run_dir=outputs/12-00-00"]])
def test_a_refused_run_leaves_no_folder(run, named):
    with pytest.raises(DataError), claimed(run, named) as claim:
        write(Path(claim.run.run_dir), "learned/tokenizer/x", "")
        raise DataError("bad")
    assert not Path("outputs").exists()


def test_what_existed_or_is_a_result_stays(run):
    Path("outputs").mkdir()
    with pytest.raises(DataError), claimed(run, []) as claim:
        write(Path(claim.run.run_dir), "config.yaml", "")
        raise DataError("bad, in the middle of a stream")
    assert Path("outputs/12-00-00/config.yaml").is_file()
    with pytest.raises(DataError), claimed(run, []):
        raise DataError("bad")
    assert [folder.name for folder in Path("outputs").iterdir()] == ["12-00-00"]


@pytest.mark.parametrize("name", place.REPLACED)
def test_files_that_no_run_left_are_not_written_over(run, name):
    folder, named = Path(run.run_dir), [f"run_dir={run.run_dir}"]
    write(folder, name, "mine")
    with pytest.raises(ConfigError, match=f"not the folder of a run, and the run would write over {name}; choose"):
        claimed(run, named).__enter__()
    assert [file.name for file in folder.iterdir()] == [name] and (folder / name).read_text() == "mine"
    write(folder, "environment.json", "{}")  # of a run, which may be begun anew
    with claimed(run, named):
        pass


@pytest.mark.parametrize("code, stays", [(0, True), (1, True), (2, False), (130, True)])
def test_the_exit_code_of_several_processes_decides(run, code, stays):
    with claimed(run, []) as claim:
        claim.code = code
    assert Path("outputs/12-00-00").exists() == stays


@pytest.mark.parametrize("before", [False, True])
def test_refused_data_leaves_a_folder_only_where_it_was(before, monkeypatch):
    monkeypatch.setattr(start.process, "prepare", lambda backend: None)  # it would change this process
    if before:
        Path("mine").mkdir()
    with pytest.raises(DataError, match="no such folder"):
        toolkit.train(["recipe=asr", "dataset=audio_folder", "dataset.path=none", "run_dir=mine"])
    assert list(Path().rglob("*")) == [Path("mine")] * before


def test_sweeps_of_the_same_second_have_folders_of_their_own(run, monkeypatch):
    monkeypatch.setattr(plan.time, "strftime", lambda form: "12-00-00")
    sweep = plan.Plan([], [], [], run, None, [], (), None)
    assert [plan.folder_of(sweep).name for _ in range(2)] == ["12-00-00", "12-00-00_2"]


def test_the_files_of_a_run_that_holds_the_folder_stay(run, monkeypatch):
    monkeypatch.setattr(place, "in_use", lambda folder: True)
    with pytest.raises(DataError), claimed(run, [f"run_dir={run.run_dir}"]) as claim:
        write(Path(claim.run.run_dir), "run.log", "")
        raise DataError("bad")
    assert Path("outputs/12-00-00/run.log").is_file()
