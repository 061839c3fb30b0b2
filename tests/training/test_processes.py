"""The processes of a run: which of them this one is, who starts them, and how they end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.devices import begun, command, logged, own_cache, train
from toolkit.config import schema as config
from toolkit.errors import ConfigError
from toolkit.training import processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with own_cache(tmp_path_factory) as folder:
        yield folder


def test_a_signal_reaches_every_process_once(backends, folder, tmp_path):
    words = command(folder, "images", "torch", tmp_path, "trainer.devices=2", "trainer.max_steps=100000")[3:]
    process = backends["torch"].start("tests.workers.forked", *words)
    children = begun(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert process.stderr == f"interrupted by signal 15; a checkpoint was saved; continue with resume={tmp_path}\n"
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
    stopped = json.loads((tmp_path / "checkpoints" / "index.json").read_text())["last"]
    assert len(logged(tmp_path)) == int(stopped.removeprefix("step-"))


def test_bad_data_are_said_once(backends, folder, tmp_path):
    nowhere = f"dataset.path={tmp_path / 'nowhere'}"
    began = time.monotonic()
    done = train(backends, folder, "images", "torch", tmp_path / "run", "trainer.devices=2", nowhere, code=2)
    assert time.monotonic() - began < processes.GRACE, "the other process waits for the first"
    assert done.stderr.count("no such folder") == 1 and "Traceback" not in done.stderr, done.stderr


def checked(*words):
    return config.check(["recipe=image_classification", *words])


@pytest.mark.parametrize(
    "words, environment, expected",
    [
        (["trainer.devices=2"], {}, None),
        (["trainer.devices=2"], {"WORLD_SIZE": "2", "RANK": "1"}, 1),
        (["trainer=fsdp"], {"WORLD_SIZE": "2", "RANK": "1"}, 1),
        (["trainer.nodes=2"], {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, 1),
        (["trainer.devices=2"], {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),  # it starts its own
        (["trainer.devices=2"], {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),  # a batch script without srun
        ([], {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (["trainer.devices=2", "backend=tf"], {"WORLD_SIZE": "2", "RANK": "1"}, None),
        (["trainer.nodes=2", "backend=tf"], {"TF_CONFIG": '{"cluster":{"worker":["a","b"]},"task":{"index":1}}'}, 1),
    ],
)
def test_a_process_knows_which_it_is(words, environment, expected):
    assert processes.own_rank(checked(*words), environment) == expected


@pytest.mark.parametrize(
    "backend, environment, says",
    [
        ("torch", {"WORLD_SIZE": ""}, "WORLD_SIZE, RANK and SLURM_.: cannot be read"),
        ("tf", {"TF_CONFIG": "x"}, "TF_CONFIG: cannot be read"),
        ("tf", {"TF_CONFIG": "[]"}, "TF_CONFIG: cannot be read"),
    ],
)
def test_a_launchers_variables_that_cannot_be_read_are_named(backend, environment, says):
    with pytest.raises(ConfigError, match=says):
        processes.own_rank(checked(f"backend={backend}"), environment)


def test_a_second_run_with_more_devices_is_refused_in_the_same_process(backends):
    done = backends["tf"].run("tests.workers.more_devices")
    assert (
        done.stdout == "trainer.devices: found 2, but this process already uses other devices; start another process\n"
    )


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < SLURM_NNODES * SLURM_NTASKS_PER_NODE; i++)); do
    SLURM_STEP_NUM_TASKS=$((SLURM_NNODES * SLURM_NTASKS_PER_NODE)) SLURM_PROCID=$i "$@"
done
exit 143
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then printf "$3%s\\n" 1 2 3 4; else echo "$@" >> asked; fi
"""
PYTHON = f"""#!{sys.executable}
import json, os, sys
told = {{name: value for name, value in os.environ.items() if name.startswith(("SLURM", "TF_CONFIG"))}}
print(json.dumps([sys.argv[1:], told]), file=open("started", "a"))
"""


@pytest.mark.parametrize("number, backend, count", [(0, "torch", 8), (1, "tf", 1)])
def test_the_scripts_for_slurm_start_what_a_process_takes_itself_for(tmp_path, number, backend, count):
    """Those of docs/guide/devices.md, with stand-ins for Slurm's commands; each job ends as one that is out of time."""
    text = (Path(__file__).parents[2] / "docs" / "guide" / "devices.md").read_text()
    script = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)[number]
    assert f"--nodes=4\n#SBATCH --ntasks-per-node={count}\n#SBATCH --gpus-per-node=8\n" in script
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_NNODES": "4", "SLURM_NTASKS_PER_NODE": str(count), "SLURM_JOB_ID": "1234567"}
    slurm |= {"SLURM_JOB_NODELIST": "host", "SLURM_CPUS_PER_TASK": "8", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ | slurm, timeout=60)
    assert done.returncode == 143
    assert (tmp_path / "asked").read_text() == "requeue 1234567\n"
    started = [json.loads(line) for line in (tmp_path / "started").read_text().splitlines()]
    words = started[0][0]
    assert words[:2] == ["-m", "toolkit.run"] and f"backend={backend}" in words
    run = checked(*(word for word in words[2:] if not word.startswith("recipe=")))
    assert [processes.own_rank(run, told) for _, told in started] == list(range(4 * count))
    if backend == "tf":
        cluster = json.loads(started[0][1]["TF_CONFIG"])["cluster"]
        assert cluster == {"worker": [f"host{n}:19567" for n in (1, 2, 3, 4)]}


@pytest.mark.parametrize("by", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
@pytest.mark.parametrize("words", [[], ["trainer.devices=3"]])
def test_another_number_of_processes_is_refused(words, by):
    with pytest.raises(ConfigError, match=f"{by}: found 2 processes"):
        processes.own_rank(checked(*words), {by: "2", "RANK": "0"})


@pytest.mark.parametrize("backend, how", [("torch", "torchrun --nnodes 2"), ("tf", "TF_CONFIG")])
def test_several_machines_are_started_by_something_else(backend, how):
    with pytest.raises(ConfigError, match=how):
        processes.must_launch(checked("trainer.nodes=2", f"backend={backend}"), None)
