"""The command line from the outside: help, exit codes, sweeps, signals, and the scripts that start it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from toolkit import __main__ as command
from toolkit.config import process, source

ROOT = Path(__file__).parents[2]


def started(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.run", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def facts(folder):
    return json.loads((folder / "facts.json").read_text())


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_help_lists_recipes_backends_groups_and_overrides(place):
    text = started("--help").stdout
    for group in source.GROUPS:
        assert all(name in text for name in source.options(group)), group
    for word in ("backend=torch|tf", "optimizer.lr=", "resume=", "evaluate=", "allow=", "exit codes", "--cfg job"):
        assert word in text
    assert started().stdout == text
    assert started(source.options("recipe")[0], "-h").stdout == text


def test_help_needs_not_even_hydra():
    code = "import sys; from toolkit import run; assert run.run(['--help']) == 0; assert 'hydra' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_composed_config_is_shown(place):
    shown = started("recipe=asr", "optimizer.lr=0.125", "--cfg", "job").stdout
    assert "lr: 0.125" in shown and "time_masks:" in shown and "recipe: asr" in shown
    assert "max_epochs: 3" in started("recipe=asr", "trainer.max_epochs=3", "--cfg", "job", "-p", "trainer").stdout
    assert not list(place.iterdir())


@pytest.mark.parametrize("flags", [[], ["-m"], ["--cfg", "job"]])
def test_a_bad_config_is_refused_at_once_and_whole(place, flags):
    done = started("recipe=asr", "model=conformr_ctc", "optimizer.lr=fast", *flags, code=2)
    assert "did you mean conformer_ctc?" in done.stderr and "optimizer.lr: found 'fast'" in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
    assert not list(place.iterdir())


@pytest.mark.parametrize("flag", ["--experimental-rerun=x.pickle", "--config-path=x", "--config-name=x"])
def test_flags_that_would_go_around_the_check_are_refused(place, flag):
    assert flag.split("=")[0] in started("recipe=asr", flag, code=2).stderr


def test_a_run_gets_its_config_and_its_folder(place):
    started("recipe=asr", "backend=tf", "optimizer.lr=0.5")
    (folder,) = place.glob("outputs/asr/tf/*")
    found = facts(folder)
    assert found["config"]["optimizer"]["lr"] == 0.5 and found["config"]["run_dir"] == str(folder.relative_to(place))
    assert found["overrides"] == ["recipe=asr", "backend=tf", "optimizer.lr=0.5"]
    assert found["keras"] == "tensorflow"
    stubs = [".lock", "begun", "facts.json", "metrics.jsonl", "results.json"]
    assert sorted(path.name for path in folder.iterdir()) == stubs  # and nothing of Hydra's
    started("recipe=asr", "run_dir=here/and there")
    assert facts(place / "here" / "and there")["config"]["backend"] == "torch"


@pytest.mark.parametrize(
    "seed, code, says, trace",
    [
        (1, 1, "the loss is not finite", False),
        (2, 2, "the data is bad:\n  a.wav: empty\n  b.wav: cut off", False),
        (3, 1, "ZeroDivisionError", True),
        (4, 143, "interrupted by signal 15", False),
        (6, 7, "", False),
    ],
)
def test_the_exit_code_says_how_a_run_ended(place, seed, code, says, trace):
    done = started("recipe=asr", f"seed={seed}", code=code)
    assert says in done.stderr and ("Traceback" in done.stderr) == trace


def test_a_sweep_runs_every_job_in_a_process_of_its_own(toolkit, place):
    done = toolkit("recipe=asr", "backend=torch,tf", "seed=0,1,5", "model.dropout=0.25", "-m", code=1)
    folders = sorted(place.glob("multirun/asr/*/*"))
    folders = [folder for folder in folders if (folder / "facts.json").exists()]
    found = {(f["config"]["backend"], f["config"]["seed"]): f for f in map(facts, folders)}
    assert set(found) == {(backend, seed) for backend in ("torch", "tf") for seed in (0, 1, 5)}
    assert len({f["pid"] for f in found.values()}) == 6
    # or the terminal's Ctrl-C would reach a job beside the one that is handed on
    assert all(f["group"] == f["pid"] for f in found.values())
    assert all(f["config"]["model"]["dropout"] == 0.25 for f in found.values())
    assert all(f["keras"] == ("tensorflow" if backend == "tf" else None) for (backend, _), f in found.items())
    assert "4 of 6 runs failed; " in done.stderr
    assert done.stderr.count("\n  exit code 1: ") == 2 and done.stderr.count("\n  exit code 137: ") == 2


def test_a_sweep_that_goes_well_exits_with_0_into_the_folder_that_is_given(place):
    odd = "it's a folder, with = signs"
    started("recipe=asr", "seed=0,7", f'run_dir="{odd}"', "-m")
    assert sorted(facts(place / odd / n)["config"]["seed"] for n in ("0", "1")) == [0, 7]


def test_no_job_of_a_sweep_starts_when_one_is_bad(toolkit, place):
    done = toolkit("recipe=asr", "model=bilstm_ctc,conformer_ctc", "model.kernel=15,4", "-m", code=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("  ")]
    assert len(lines) == 2 and "model.kernel: unknown key" in lines[0] and "model.kernel: found 4" in lines[1]
    assert not list(place.iterdir())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_running_job_and_stops_the_sweep(place, signum):
    words = [sys.executable, "-m", "toolkit.run", "recipe=asr", "seed=9,0", "run_dir=sweep", "-m"]
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    until((place / "sweep" / "0" / "waiting").exists)
    os.killpg(process.pid, signum)  # as a terminal does
    process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert json.loads((place / "sweep" / "0" / "asked").read_text()) == [signum]
    assert not (place / "sweep" / "1" / "facts.json").exists()


def test_a_job_is_asked_to_stop_when_its_sweep_is_killed(place):
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.run", "recipe=asr", "seed=9,0", "run_dir=sweep", "-m"],
        stdout=subprocess.DEVNULL,
    )
    until((place / "sweep" / "0" / "waiting").exists)
    job = facts(place / "sweep" / "0")["pid"]
    process.kill()
    process.wait()
    until((place / "sweep" / "0" / "asked").exists)
    assert json.loads((place / "sweep" / "0" / "asked").read_text()) == [signal.SIGTERM]
    until(lambda: not Path(f"/proc/{job}").exists() or "Z" in Path(f"/proc/{job}/stat").read_text())


@pytest.mark.long
def test_groups_of_ones_own_reach_the_jobs_of_a_sweep(place):
    (place / "conf" / "recipe").mkdir(parents=True)
    (place / "conf" / "recipe" / "mine.yaml").write_text("defaults: [asr, _self_]\ntrainer: {max_epochs: 3}\n")
    started("recipe=mine", "run_dir=run", "--config-dir", "conf")
    started("recipe=mine", "seed=0,7", "run_dir=sweep", "-m", "--config-dir", "conf")
    for folder in ("run", "sweep/0", "sweep/1"):
        assert facts(place / folder)["config"]["trainer"]["max_epochs"] == 3


def verb(*arguments, code=0):
    done = subprocess.run([sys.executable, "-m", "toolkit", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_run_by_its_verb_is_the_same_command(place):
    assert verb("run").stdout == verb("run", "--help").stdout == started("--help").stdout
    assert verb("run", "recipe=asr", "--cfg", "job").stdout == started("recipe=asr", "--cfg", "job").stdout
    verb("run", "recipe=asr", "run_dir=r")
    assert facts(place / "r")["overrides"] == ["recipe=asr", "run_dir=r"]


def test_the_help_lists_every_verb_and_each_has_its_own():
    lines = verb("--help").stdout.splitlines()
    assert verb().stdout.splitlines() == lines
    for name in command.verbs():
        assert any(line.split()[:1] == [name] and len(line.split()) > 2 for line in lines), name
        assert verb(name, "--help").stdout == verb(name).stdout != ""
    assert {"run", "predict", "certify", "sweep"} <= set(command.verbs())


@pytest.mark.parametrize("word, nearest", [("predct", "predict"), ("recipe=asr", "run recipe=asr"), ("zzzz", "")])
def test_a_wrong_verb_is_one_line_with_the_nearest(word, nearest):
    done = verb(word, code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"toolkit: found '{word}', expected one of ") and done.stdout == ""
    assert line.endswith(f"; did you mean toolkit {nearest}?") == bool(nearest)


def test_the_help_of_a_verb_imports_neither_hydra_nor_a_framework():
    code = f"""
import sys
from toolkit.__main__ import run, verbs
assert [run([name, "--help"]) for name in verbs()] == [0] * len(verbs()) and run([]) == 0
heavy = {["hydra", "omegaconf", "rich", *sorted(set().union(*process.FOREIGN.values()))]!r}
assert not [name for name in heavy if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.long
def test_a_sweep_by_its_verb(place):
    verb("sweep", "recipe=asr", "seed=0,7", "run_dir=s")
    assert sorted(facts(place / "s" / n)["config"]["seed"] for n in ("0", "1")) == [0, 7]
    assert "2 of 2 done" in verb("sweep", "s").stdout
    assert "expected the folder of a sweep" in verb("sweep", "nowhere", code=2).stderr


@pytest.mark.parametrize("what", ["defaults-tree", "searchpath"])
def test_hydras_own_information_is_there(place, what):
    assert "toolkit" in started("recipe=asr", "--info", what).stdout or what == "defaults-tree"


# --- scripts ---


NO_PIP = 'if [ "$2" = venv ]; then mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; fi\n      echo "PYTHONPATH=$PYTHONPATH"'


@pytest.fixture
def checkout(tmp_path):
    """A copy of the scripts under a path with a space, and a python that only tells what it is asked."""
    root = tmp_path / "a check out"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    shutil.copytree(ROOT / ".ci", root / ".ci")
    shutil.copy(ROOT / "pyproject.toml", root)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    tell = textwrap.dedent(
        """\
        #!/usr/bin/env bash
        case "$1" in
          -c) case "$2" in *print*) echo 3.11; esac; exit ${LACKS_VENV:-0} ;;
          -m) if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
              if [ "$2" = pip ]; then failed="${FAILS:-0}"; fi ;;
        esac
        printf '<%s>' "$@"; echo
        exit "${failed:-0}"
        """
    )
    for name in ("python3.11", "python3.12", "python3.13", "python3", "python"):
        (binaries / name).write_text(tell)
        (binaries / name).chmod(0o755)
    return root, binaries


def script(checkout, name, *arguments, code=0, path=None, **environment):
    root, binaries = checkout
    search = path if path is not None else f"{binaries}:/usr/bin:/bin"
    done = subprocess.run(
        [root / name, *arguments], capture_output=True, text=True, cwd="/", env={"PATH": search, **environment}
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def installs(done):
    return [line.split("<--editable>")[1] for line in done.stdout.splitlines() if "<--editable>" in line]


def test_run_makes_the_environment_that_the_backend_needs_once(checkout):
    root, _ = checkout
    done = script(checkout, "scripts/run", "recipe=asr", "backend=tf", "run_dir=a b")
    assert installs(done) == [f"<{root}[tf]>"]
    assert done.stdout.splitlines()[-1] == "<-m><toolkit.run><recipe=asr><backend=tf><run_dir=a b>"
    again = script(checkout, "scripts/run", "recipe=asr", "backend=tf")
    assert again.stdout == "<-m><toolkit.run><recipe=asr><backend=tf>\n"
    earlier = root / "outputs"
    earlier.mkdir()
    (earlier / "config.yaml").write_text("recipe: asr\nbackend: tf\n")
    assert installs(script(checkout, "scripts/run", f"resume={earlier}")) == []
    assert installs(script(checkout, "scripts/run", "recipe=asr")) == [f"<{root}[torch]>"]
    assert installs(script(checkout, "scripts/run", "backend=torch,tf", "-m")) == []
    assert installs(script(checkout, "scripts/run", "sweep=optuna", "launcher=ray", "-m")) == [f"<{root}[sweep,ray]>"]
    with open(root / "pyproject.toml", "a") as file:
        file.write("\n# changed\n")
    assert installs(script(checkout, "scripts/run", "backend=torch,tf", "-m")) == [f"<{root}[torch,tf]>"]


def test_run_takes_a_verb(checkout):
    root, _ = checkout
    (root / "past").mkdir()
    (root / "past" / "config.yaml").write_text("backend: tf\n")
    done = script(checkout, "scripts/run", "predict", root / "past", "a b.wav")
    assert installs(done) == [f"<{root}[tf]>"]
    assert done.stdout.splitlines()[-1] == f"<-m><toolkit><predict><{root}/past><a b.wav>"
    assert installs(script(checkout, "scripts/run", "certify", "recipe=asr")) == [f"<{root}[torch]>"]  # beside tf
    assert installs(script(checkout, "scripts/run", "sweep", "recipe=asr", "seed=0,1", "backend=torch,tf")) == []


@pytest.mark.parametrize("arguments", [[], ["--help"], ["recipe=asr", "--cfg", "job"], ["backend=jax"]])
def test_run_installs_no_framework_for_what_needs_none(checkout, arguments):
    root, _ = checkout
    done = script(checkout, "scripts/run", *arguments)
    assert installs(done) == [f"<{root}>"]
    assert done.stdout.splitlines()[-1] == "".join(f"<{word}>" for word in ("-m", "toolkit.run", *arguments))


def test_test_installs_everything_and_checks_everything(checkout):
    root, _ = checkout
    done = script(checkout, ".ci/run", "-k", "a b")
    assert installs(done) == [f"<{root}[torch,tf,dev]>"]
    assert [line.split("><")[1] for line in done.stdout.splitlines()[-4:]] == ["ruff", "ruff", "mypy>", "pytest"]
    assert done.stdout.splitlines()[-1].endswith("<-k><a b>")


def test_the_scripts_say_what_a_machine_lacks(checkout, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "cksum", "mkdir", "cat", "env"):
        (tools / name).symlink_to(shutil.which(name))
    assert "No Python 3.11, 3.12 or 3.13" in script(checkout, "scripts/run", code=1, path=str(tools)).stderr
    root, binaries = checkout
    for file in binaries.iterdir():
        file.write_text(file.read_text().replace('case "$2" in', 'case "$2" in *ensurepip*) exit 1;;'))
    (binaries / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    (binaries / "apt-get").chmod(0o755)
    assert "apt-get install python3-venv" in script(checkout, "scripts/run", code=1).stderr
    assert not (root / ".venv").exists()


def test_a_debian_python_without_ensurepip_takes_debians_pip(checkout):
    root, binaries = checkout
    wheel = "usr/share/python-wheels/pip-23-py3-none-any.whl"
    for name, does in (
        ("apt-get", 'touch "$3_23_all.deb"'),
        ("dpkg", f"mkdir -p $(dirname {wheel}); touch {wheel}"),
    ):
        (binaries / name).write_text(f"#!/bin/sh\n{does}\n")
        (binaries / name).chmod(0o755)
    for file in binaries.glob("python*"):
        text = file.read_text().replace('case "$2" in', 'case "$2" in *ensurepip*) exit 1;;')
        text = text.replace('if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi', NO_PIP)
        file.write_text(text)
    done = script(checkout, "scripts/run")
    assert f"PYTHONPATH={root}/.venv/.pip/{wheel}" in done.stdout and "<--without-pip>" in done.stdout
    assert installs(done) == [f"<{root}>"]
    assert not (root / ".venv" / ".pip").exists()


def test_a_failed_installation_is_tried_again(checkout):
    assert "installation failed" in script(checkout, "scripts/run", "recipe=asr", code=1, FAILS="3").stderr
    assert len(installs(script(checkout, "scripts/run", "recipe=asr"))) == 1
