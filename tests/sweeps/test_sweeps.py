"""Sweeps from the outside: grids, searches, seeds, interruptions, launchers, and what they leave behind."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.cli.test_cli import facts, until
from toolkit.config import compose
from toolkit.errors import ConfigError
from toolkit.sweeps import driver, launchers, page, plots, search, state
from toolkit.sweeps.spec import Grid, Local, Optuna
from toolkit.sweeps.state import Job, Objective, State, Trial
from toolkit.tasks.classification.spec import Classification
from toolkit.tasks.ctc.spec import CTC


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


def test_the_reason_of_a_failure_is_one_that_can_be_read(tmp_path):
    log = tmp_path / "0.log"
    log.write_text("step 2: the loss is not finite: " + ", ".join(f"train/{n}.jpg" for n in range(99)) + "\n")
    told = driver._why(1, log)
    assert told.startswith("step 2: the loss is not finite: train/0.jpg, ") and told.endswith(" ...")
    assert len(told) <= 200
    log.write_text("")
    assert driver._why(1, log) == "it left no results.json" and driver._why(137, log) == "ended by SIGKILL"


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


@pytest.mark.parametrize(
    "name, line",
    [
        (
            "validation.wre",
            "'validation.wre', expected a metric of CTC: loss, wer, cer; did you mean 'wer'?",
        ),
        ("validation.bleu", "'validation.bleu', expected a metric of CTC: loss, wer, cer$"),
        ("valid.wer", "'valid.wer', expected a split of validation and test"),
    ],
)
def test_an_objective_that_no_run_has_is_refused(name, line):
    with pytest.raises(ConfigError, match=f"objectives: found {line}"):
        Objective.named(name, CTC())


def test_a_sweep_of_an_earlier_format_is_named_with_its_reader(tmp_path):
    (tmp_path / "sweep.json").write_text('{"format": 1}')
    with pytest.raises(ConfigError, match="found format 1, expected 2; commit 7879d9e of the toolkit reads it"):
        state.load(tmp_path)


def test_a_launcher_and_a_search_of_ones_own_are_refused():
    assert launchers.check(Grid()) == ["launcher: found Grid, expected one of local, ray, slurm, submitit_local"]
    assert search.check(Local(), []) == ["sweep: found Local, expected sweep=grid or sweep=optuna"]


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


def test_sweeps_that_begin_together_on_one_study_draw_other_trials(tmp_path):
    spec = Optuna(trials=9, sampler="random", storage=f"sqlite:///{tmp_path / 'all.db'}", study="both")
    axes = [compose.Axis("x", low=0.0, high=1.0)]
    both = [search.search(spec, axes, tmp_path / uid, uid, ["minimize"], False) for uid in "ab"]
    asked = [study.ask() for study in both for _ in range(3)]
    assert len({number for number, _ in asked}) == len({params["x"] for _, params in asked}) == 6
    # nor does either take what the other is at, when it goes on
    again = search.search(spec, axes, tmp_path / "a", "a", ["minimize"], False)
    assert [again.ask() for _ in range(3)] == asked[:3] and again.ask()[0] == 6


def test_a_sampler_does_not_repeat_itself_after_an_interruption(tmp_path):
    axes = [compose.Axis("x", low=0.0, high=1.0)]
    seen = []
    for _ in range(2):
        study = search.search(Optuna(trials=8, sampler="random"), axes, tmp_path, "u", ["minimize"], False)
        for _ in range(3):
            number, params = study.ask()
            seen.append(params["x"])
            study.tell(number, [float(params["x"])])
    assert len(set(seen)) == 6


# --- launchers -------------------------------------------------------------------------------------------------------


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


def test_ray_runs_the_jobs(toolkit, place):
    toolkit("recipe=asr", "seed=0,1,7", "launcher=ray", "launcher.jobs=2", "run_dir=s", "-m", code=1)
    assert [row["state"] for row in table(place / "s")] == ["done", "failed", "done"]


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word, expected",
    [
        ("a.b=1,2", compose.Axis("a.b", ("1", "2"))),
        ("model=x,y", compose.Axis("model", ("x", "y"))),
        ("a=choice(x,y)", compose.Axis("a", ("x", "y"))),
        ("a=interval(0,1.5)", compose.Axis("a", low=0, high=1.5)),
        ("a=tag(log,interval(1e-4,1e-2))", compose.Axis("a", low=1e-4, high=1e-2, log=True)),
        ("a=int(interval(1,8))", compose.Axis("a", low=1, high=8, whole=True)),
        ("a=range(1,6,2)", compose.Axis("a", ("1", "3", "5"), ordered=True)),
    ],
)
def test_axes_are_written_as_hydra_writes_them(word, expected):
    problems = []
    fixed, found = compose.axes(["seed=3", word], problems)
    assert (fixed, found, problems) == (["seed=3"], [expected], [])


def test_ranking_puts_what_is_not_a_number_last():
    def trial(number, value, status="done"):
        return Trial(number, {}, [Job(str(number), state=status)], [[value]])

    for task, name, best in ((CTC(), "validation.wer", 2), (Classification(), "validation.accuracy", 1)):
        sweep = State("u", [], {}, "x", [], [Objective.named(name, task)], 4)
        sweep.trials = [trial(0, math.nan), trial(1, 0.9), trial(2, 0.1), trial(3, 0.0, "failed")]
        assert next(t.number for t in sweep.ranked()) == best
        assert {t.number for t in sweep.ranked()[2:]} == {0, 3}


def test_a_page_is_made_of_anything(tmp_path):
    """Of nothing, one trial, objectives that are no numbers, values that a plot would take for formulas."""
    objectives = [Objective.named("validation.loss", Classification())]
    for values in ([], [0.5], [math.nan, math.inf], [0.5, 0.5, 0.5, 0.5 + 1e-12], [1.0, 2.0, 3.0, 4.0]):
        sweep = State("u", [], {}, "x", ["a", "b"], objectives, len(values))
        for number, value in enumerate(values):
            params = {"a": "$x$ <b> $y$" if number % 2 else "nan", "b": str(10.0**number)}
            sweep.trials.append(Trial(number, params, [Job(str(number), state="done")], [[value]]))
        page.write(sweep, tmp_path)
        made = (tmp_path / "sweep.html").read_text()
        assert "could not be drawn" not in made and "<b> $y$" not in made


def sought(key, word, values):
    """A search over one range, of which some trials are done."""
    axis = compose.axes([f"{key}={word}"], [])[1][0]
    sweep = State(
        "u", [], {"axes": [asdict(axis)]}, "x", [key], [Objective.named("validation.accuracy", Classification())], 9
    )
    for number, value in enumerate(values):
        sweep.trials.append(Trial(number, {key: str(value)}, [Job(str(number), state="done")], [[0.5 + 0.01 * number]]))
    return sweep


@pytest.mark.parametrize(
    "word, values, scale, below",
    [
        ("tag(log,interval(1e-4,1e-2))", [2.1342e-4, 5e-4, 9e-4, 3.1e-3], "log", ["0.0003", "0.001", "0.003"]),
        ("tag(log,interval(1e-4,1e-2))", [2.02e-4, 2.1e-4, 2.5e-4], "log", ["0.000202", "0.00025"]),
        ("interval(0,1)", [0.001, 0.5], "log", ["0.001", "0.5"]),  # it spans much
        ("1e-3,3e-3", [0.001, 0.003], "linear", ["0.001", "0.003"]),
        ("1e-3,3e-3", [0.001, 0.001], "linear", None),
    ],
)
def test_a_parameter_is_drawn_on_the_scale_on_which_it_was_sought(word, values, scale, below):
    sweep = sought("optimizer.lr", word, values)
    plot = plots.against(sweep, sweep.trials)
    if below is None:
        assert plot is None
        return
    axis = plot.axes[0]
    assert axis.get_xscale() == scale
    assert [label.get_text() for label in axis.get_xticklabels()] == below


def test_plots_say_percent_where_tables_do_and_name_torch_first():
    for name, said in (("validation.accuracy", "50 %"), ("validation.loss", "0.5"), ("parameters", "0.5")):
        sweep = State("u", [], {}, "x", ["backend"], [Objective.named(name, Classification())], 2)
        for number, backend in enumerate(("tf", "torch")):
            sweep.trials.append(Trial(number, {"backend": backend}, [Job(str(number), state="done")], [[0.1 + number]]))
        axes = plots.against(sweep, sweep.trials).axes[0]
        axes.set_yticks([0.5])
        assert axes.get_yticklabels()[0].get_text() == said
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["torch", "tf"]


def test_few_trials_tell_nothing_of_importance():
    rows = [{"a": f"{n / 12}", "b": f"{n * 5 % 12}"} for n in range(12)]
    values = [float(row["a"]) for row in rows]
    found = search.importance(["a", "b"], rows, values)
    assert list(found) == ["a", "b"] and sum(found.values()) == pytest.approx(1) and found["a"] > 0.8
    assert search.importance(["a", "b"], rows[:9], values[:9]) == {}


def test_a_page_has_short_numbers():
    axis = {"optimizer.lr": "0.0016051911333587634"}
    sweep = State("u", [], {}, "x", list(axis), [Objective.named("validation.loss", Classification())], 1)
    sweep.trials = [Trial(0, axis, [Job("0", state="done")], [[0.5]])]
    assert "<td>0.001605</td>" in page.trials(sweep)
    assert "0.0016051911333587634" in page.as_csv(sweep, {}, Path("s"))


def test_seeds_that_came_to_no_number_have_no_interval():
    jobs = [Job(str(n), n, "done") for n in range(2)]
    assert math.isnan(Trial(0, {}, jobs, [[math.inf], [1.0]]).intervals()[0])


def test_a_state_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / state.FILE).write_text(json.dumps({"format": 9}))
    with pytest.raises(ConfigError, match=r"sweep\.json: cannot be read"):
        state.load(tmp_path)
