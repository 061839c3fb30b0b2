"""Sweeps from the outside: grids, searches, seeds, interruptions, launchers, and what they leave behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.test_cli import facts, until
from toolkit.sweeps import state


@pytest.fixture
def entry():
    """The command that forks its jobs; test_cli.py and the sweeps that are killed start them."""
    return "tests.workers.forked"


def begun(folder):
    """How many times a job was started."""
    return len((folder / "begun").read_text().splitlines())


def table(folder):
    with open(folder / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "toolkit.run", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


# --- grids -----------------------------------------------------------------------------------------------------------


def test_a_grid_leaves_a_table_and_a_page_sorted_by_the_objective(toolkit, place):
    done = toolkit("recipe=asr", "backend=torch,tf", "optimizer.lr=0.02,0.01", "run_dir=s", "-m")
    found = state.load(place / "s")
    assert found.ended and [t.params for t in found.ranked()][:2] == [
        {"backend": backend, "optimizer.lr": "0.01"} for backend in ("torch", "tf")
    ]
    rows = table(place / "s")
    assert [row["state"] for row in rows] == ["done"] * 4
    assert float(rows[1]["validation.cer"]) == 0.0 and float(rows[0]["test.cer"]) == pytest.approx(0.02)
    assert {row["folder"] for row in rows} == {f"s/{n}" for n in range(4)}
    page = (place / "s" / "sweep.html").read_text()
    for part in (
        "PyTorch against TensorFlow",
        "Learning curves",
        "Parallel coordinates",
        "Objective against",
        "tf / torch",
    ):
        assert part in page, part
    assert page.count("data:image/png;base64,") >= 3 and "http" not in page.replace("http-equiv", "")
    assert "4 of 4 done" in done.stdout and "run 2: done  validation.cer 1.00 %" in done.stdout
    before = (place / "s" / "sweep.csv").read_text()
    (place / "s" / "sweep.csv").unlink()
    command = [sys.executable, "-m", "toolkit", "sweep", "s"]
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and "4 of 4 done" in again.stdout
    assert (place / "s" / "sweep.csv").read_text() == before


def test_only_what_failed_is_run_again(toolkit, place):
    command = ("recipe=asr", "seed=0,1,7", "run_dir=s", "-m")
    done = toolkit(*command, code=1)
    assert "1 of 3 runs failed" in done.stderr and "exit code 1: s/1: the loss is not finite" in done.stderr
    before = [float(row["seconds"]) for row in table(place / "s")]
    toolkit(*command, code=1)
    assert [begun(place / "s" / n) for n in "012"] == [1, 2, 1]
    assert [row["state"] for row in table(place / "s")] == ["done", "failed", "done"]
    after = [float(row["seconds"]) for row in table(place / "s")]
    assert after[0] == before[0] and after[1] > before[1] > 0, "seconds are those of all attempts"


def test_another_sweep_is_kept_out_of_the_folder(toolkit, place):
    toolkit("recipe=asr", "seed=0,7", "run_dir=s", "-m")
    said = toolkit("recipe=asr", "seed=0,8", "run_dir=s", "-m", code=2).stderr
    assert "s holds another sweep (recipe=asr seed=0,7 run_dir=s)" in said
    toolkit("recipe=asr", "seed=0,7", "run_dir=s", "launcher.jobs=2", "-m")  # where it runs is no part of it


def test_several_at_a_time_share_the_cores(toolkit, place, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    toolkit("recipe=asr", "seed=0,7,8", "run_dir=s", "launcher.jobs=3", "-m")
    expected = str(max(1, len(os.sched_getaffinity(0)) // 3))
    assert [(place / "s" / n / "begun").read_text() for n in "012"] == [f"{expected}\n"] * 3


def test_seeds_are_one_override_and_give_mean_and_interval(toolkit, place):
    done = toolkit("recipe=asr", "optimizer.lr=0.01,0.02", "seeds=2", "seed=10", "run_dir=s", "-m")
    found = state.load(place / "s")
    assert sorted(p.parent.name for p in (place / "s").glob("*/facts.json")) == [
        f"{trial}-seed{seed}" for trial in (0, 1) for seed in (10, 11)
    ]
    assert [facts(place / "s" / f"1-seed{seed}")["config"]["seed"] for seed in (10, 11)] == [10, 11]
    (mean,), (width,) = found.trials[0].means(), found.trials[0].intervals()
    assert mean == pytest.approx(0.0105) and width == pytest.approx(12.706 * 0.0005, rel=1e-4)  # Student, 1 degree
    assert "1.05 % ± 0.64 %" in done.stdout
    toolkit("recipe=asr", "seeds=2", "seed=10", "run_dir=alone")  # no flag is needed
    assert (place / "alone" / "0-seed11" / "results.json").exists()


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, line",
    [
        (["optimizer.lr=interval(0.1,0.2)"], "optimizer.lr: an interval is not supported in a grid"),
        (["sweep=optuna"], "found no axis"),
        (["sweep=optuna", "optimizer.lr=interval(-1,0.2)"], "optimizer.lr: found -1"),
        (["seed=1,2", "seeds=3"], "seeds: 3 is not supported with several values of seed"),
        (["launcher.jobs=1,2"], "launcher.jobs: several values"),
        (["objectives=[cer]", "seed=1,2"], "objectives: found 'cer', expected SPLIT.METRIC"),
        (["hydra/launcher=joblib", "seed=1,2"], "hydra/launcher=joblib: settings of Hydra are not"),
        (["optimizer.lr=0.1,0.2", "optimizer.lr=0.3,0.4"], "optimizer.lr: given twice"),
        (["seed=shuffle(1,2,3)"], "seed=shuffle(1,2,3): expected values a,b,c"),
        (["model=glob(*)"], "model=glob(*): expected values"),
        (["launcher.address=auto", "launcher=ray", "seed=1,2"], "launcher: "),
        (
            ["sweep=optuna", "sweep.storage=nonsense", "optimizer.lr=0.1,0.2"],
            "sweep.storage: nonsense cannot be opened",
        ),
        (["launcher=slurmm", "seed=1,2"], "did you mean slurm?"),
        (["launcher.jobs=2", "launcher.gpus=[0]", "seed=1,2"], "launcher.gpus: found 1, expected as many"),
    ],
)
def test_a_sweep_is_refused_before_it_begins(toolkit, place, words, line):
    assert line in toolkit("recipe=asr", *words, "-m", code=2).stderr
    assert not list(place.glob("**/facts.json"))


def test_what_is_about_a_sweep_needs_one(toolkit, place):
    assert "launcher=slurm: a setting of a sweep; add -m" in toolkit("recipe=asr", "launcher=slurm", code=2).stderr
    assert "lr: 0.01" in toolkit("recipe=asr", "optimizer.lr=0.01", "seeds=2", "--cfg", "job").stdout
    assert not list(place.iterdir())


def test_recipes_that_monitor_different_metrics_need_an_objective(toolkit, place):
    words = ("recipe=asr,image_classification", "run_dir=s", "-m")
    assert "the runs monitor cer and accuracy" in toolkit(*words, code=2).stderr


def test_several_values_without_the_flag_are_explained(toolkit, place):
    assert "add -m" in toolkit("recipe=asr", "seed=1,2", code=2).stderr


# --- interruptions ---------------------------------------------------------------------------------------------------


def test_a_sweep_that_was_killed_goes_on_with_the_same_command(toolkit, place):
    command = ("recipe=asr", "seed=0,9,7", "-m")
    process = start(*command)
    until(lambda: list(place.glob("multirun/asr/*/1/waiting")))
    (folder,) = place.glob("multirun/asr/*")
    process.kill()
    process.wait()
    (folder / "1" / "waiting").unlink()
    process = start(*command)  # at once, while the job that was killed may still be saving
    until((folder / "1" / "waiting").exists)
    assert toolkit(*command, code=1).stderr.count("in use") == 1  # and not a third beside it
    os.kill(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and f"resuming the sweep in {folder.relative_to(place)}" in said
    assert "the same command resumes it" in said
    assert [job.state for trial in state.load(folder).trials for job in trial.jobs] == ["done", "waiting"]
    assert begun(folder / "0") == 1 and begun(folder / "1") == 2 and not (folder / "2").exists()
    assert "resume=auto" in facts(folder / "1")["overrides"]
    assert list(place.glob("multirun/asr/*")) == [folder]


@pytest.mark.long
def test_a_sweep_that_has_ended_is_not_gone_on_with(toolkit, place):
    toolkit("recipe=asr", "seed=0,7", "-m")
    time.sleep(1.1)  # the folder's name is the second
    toolkit("recipe=asr", "seed=0,7", "-m")
    assert len(list(place.glob("multirun/asr/*"))) == 2


# --- searches --------------------------------------------------------------------------------------------------------

SEARCH = ("recipe=asr", "sweep=optuna", "optimizer.lr=tag(log,interval(1e-4,0.9))", "run_dir=s", "-m")


@pytest.mark.long
def test_a_search_keeps_its_study_and_goes_on_to_more_trials(toolkit, place):
    toolkit(*SEARCH, "sweep.trials=12", "launcher.jobs=2")
    found = state.load(place / "s")
    assert len(found.trials) == 12 and {trial.state for trial in found.trials} <= {"done", "pruned"}
    rates = [float(trial.params["optimizer.lr"]) for trial in found.trials]
    assert len(set(rates)) == 12 and all(1e-4 <= rate <= 0.9 for rate in rates)
    assert (place / "s" / "study.db").exists()
    toolkit(*SEARCH, "sweep.trials=14")  # two more
    found = state.load(place / "s")
    assert len(found.trials) == 14 and [begun(place / "s" / str(n)) for n in range(14)] == [1] * 14
    (place / "s").rename(place / "moved")
    toolkit(*SEARCH[:3], "run_dir=moved", "sweep.trials=15", "-m")  # and the study with it
    assert state.load(place / "moved").trials[:14] == found.trials


@pytest.mark.long
def test_what_failed_in_a_search_is_tried_again(toolkit, place):
    command = (*SEARCH[:2], "optimizer.lr=0.01", "seed=1,10", *SEARCH[3:], "sweep.trials=4", "sweep.sampler=random")
    said = toolkit(*command, code=1).stderr
    failed = [t for t in state.load(place / "s").trials if t.state == "failed"]
    assert f"{len(failed)} of 4 runs failed" in said and {t.params["seed"] for t in failed} == {"1"}
    toolkit(*command, code=1)  # once, not once for each time that it failed
    trials = state.load(place / "s").trials
    assert sum(t.state == "failed" for t in trials) == 1 and max(t.number for t in trials) == 4


@pytest.mark.long
def test_the_study_of_another_sweep_is_not_taken_for_its_own(toolkit, place):
    toolkit(*SEARCH, "sweep.trials=1")
    (place / "s" / "study.db").unlink()
    assert "belong to different sweeps" in toolkit(*SEARCH, "sweep.trials=3", "sweep.seed=5", code=2).stderr


def test_a_search_that_was_killed_repeats_nothing_and_takes_up_the_trial_it_was_in(place):
    slow = (*SEARCH[:2], "optimizer.lr=0.01", "seed=0,9", *SEARCH[3:], "sweep.trials=6", "sweep.sampler=random")
    process = start(*slow)
    until(lambda: list(place.glob("s/*/waiting")))
    (waiting,) = place.glob("s/*/waiting")
    process.kill()
    process.wait()
    done = [path.parent.name for path in place.glob("s/*/results.json")]
    waiting.unlink()
    process = start(*slow)
    until(waiting.exists)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    assert begun(waiting.parent) == 2 and facts(waiting.parent)["config"]["seed"] == 9
    assert all(begun(place / "s" / name) == 1 for name in done)
    assert len(state.load(place / "s").trials) == len(done) + 1


def test_a_hopeless_trial_is_stopped(toolkit, place):
    toolkit(
        *SEARCH[:2], "optimizer.lr=0.01,5.0", *SEARCH[3:], "sweep.trials=5", "sweep.startup=1", "sweep.sampler=random"
    )
    states = {}
    for trial in state.load(place / "s").trials:
        states.setdefault(trial.params["optimizer.lr"], []).append(trial.state)
    assert set(states["0.01"]) == {"done"} and states["5.0"][-1] == "pruned", states


@pytest.mark.long
def test_several_objectives(toolkit, place):
    toolkit(*SEARCH, "sweep.trials=2", "objectives=[validation.cer,examples_per_second]", "sweep.sampler=nsgaii")
    found = state.load(place / "s")
    assert [(o.name, o.direction) for o in found.objectives] == [
        ("validation.cer", "minimize"),
        ("examples_per_second", "maximize"),
    ]
    assert all(len(trial.means()) == 2 for trial in found.trials)


def test_a_recipe_may_name_its_ranges(toolkit, place):
    (place / "conf" / "recipe").mkdir(parents=True)
    (place / "conf" / "recipe" / "mine.yaml").write_text(
        "defaults: [asr, _self_]\nranges: ['optimizer.lr=tag(log,interval(1e-4,0.9))', 'model.dropout=0.1,0.2']\n"
    )
    own = ("--config-dir", "conf")
    toolkit("recipe=mine", "sweep=optuna", "sweep.trials=3", "model.dropout=0.5", "run_dir=s", "-m", *own)
    assert state.load(place / "s").axes == ["optimizer.lr"]
    assert facts(place / "s" / "0")["config"]["model"]["dropout"] == 0.5
    assert not {"sweep", "launcher", "ranges"} & facts(place / "s" / "0")["config"].keys()


@pytest.mark.long
def test_two_sweeps_may_share_a_study(toolkit, place):
    shared = ("sweep.storage='sqlite:///all.db'", "sweep.study=both", "sweep.trials=5")
    toolkit(*SEARCH[:3], "run_dir=a", *shared, "-m")
    toolkit(*SEARCH[:3], "run_dir=b", *shared, "sweep.trials=7", "-m")
    assert [len(state.load(place / name).trials) for name in "ab"] == [5, 2]


# --- launchers -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_submitit_runs_the_jobs(toolkit, place):
    toolkit("recipe=asr", "seed=0,1,7", "launcher=submitit_local", "launcher.jobs=2", "run_dir=s", "-m", code=1)
    assert [row["state"] for row in table(place / "s")] == ["done", "failed", "done"]
    assert facts(place / "s" / "2")["config"]["seed"] == 7


@pytest.mark.long
@pytest.mark.parametrize("name", ["submitit_local", "ray"])
def test_jobs_elsewhere_save_when_the_sweep_is_interrupted(place, name):
    process = start("recipe=asr", "seed=9,0", f"launcher={name}", "launcher.jobs=1", "run_dir=s", "-m")
    until((place / "s" / "0" / "waiting").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 143
    until((place / "s" / "0" / "asked").exists)
    assert signal.SIGTERM in json.loads((place / "s" / "0" / "asked").read_text())
    assert [job.state for trial in state.load(place / "s").trials for job in trial.jobs] == ["waiting"]


@pytest.mark.long
def test_ray_runs_the_jobs(toolkit, place):
    toolkit("recipe=asr", "seed=0,1,7", "launcher=ray", "launcher.jobs=2", "run_dir=s", "-m", code=1)
    assert [row["state"] for row in table(place / "s")] == ["done", "failed", "done"]
