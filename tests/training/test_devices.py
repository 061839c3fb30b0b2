"""Several devices that share each batch: the trajectory of one device, whoever goes on with it, and what goes wrong."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from toolkit.config import schema as config
from toolkit.data import translation
from toolkit.data.batch import Part, rows, rows_of
from toolkit.errors import ConfigError, Interrupted
from toolkit.layers import spec as layers
from toolkit.runs import job
from toolkit.runs.checkpoint import Progress
from toolkit.runs.folder import Onlooker, RunFolder
from toolkit.tasks.seq2seq.spec import Seq2Seq
from toolkit.training import loop
from toolkit.training import processes as ranks
from toolkit.training.spec import check_gpus

from . import made, test_loop, tiny

BACKENDS = ("torch", "tf")
STEPS = 4
TOLERANCE = 1e-8  # relative, in float64: what differs is the order of sums over a batch
# 24 examples, two batches a step: where 23 are taken at most, one batch has a single row, and one device none of it
ODD = ["trainer.batch_examples=23"]
# a checkpoint after two of four steps falls into the middle of an epoch
HALVES = ["trainer.batch_examples=7", "trainer.checkpoint_every=2"]
LAYERS = re.compile("ers=[0-9]+$")  # one of each kind is enough, and halves the time of tracing
RECIPES = {
    # batch norm over sequences, dropout of all shapes, SpecAugment
    "speech": ("asr", ["model=conformer_ctc", "task.decoder=greedy", *ODD]),
    # a loss that is a mean over tokens
    "translation": ("translation", ["task.decoder=beam", "model.attention_dropout=0.1", *HALVES]),
    # batch norm over pictures, crops and flips
    "images": ("image_classification", ["features.crop=pad", *ODD, "trainer.checkpoint_every=2", "schedule=constant"]),
}
# what shares the weights too has to know from where a model's parts are called: the other models, and other ways
OTHERS = {
    "speech-bilstm": ("asr", ["model=bilstm_ctc", "task.decoder=beam", *ODD]),
    "translation-post": ("translation", ["model.norm=post", "model.tie_output=false", "task.decoder=greedy", *HALVES]),
    "translation-lstm": ("translation", ["model=lstm_attention", "task.decoder=beam", *HALVES]),
    "translation-feeding": ("translation", ["model=lstm_attention", "model.input_feeding=true", *HALVES]),
    "images-cnn": ("image_classification", ["model=cnn", "optimizer=sgd", *ODD]),
    "images-resnet": ("image_classification", ["model=resnet", *ODD]),
    "images-vit": ("image_classification", ["model=vit", *ODD]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    before = os.environ.get("TOOLKIT_CACHE")
    os.environ["TOOLKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield tmp_path_factory.mktemp("devices")
    if before is None:
        del os.environ["TOOLKIT_CACHE"]
    else:
        os.environ["TOOLKIT_CACHE"] = before


def command(folder, domain, backend, run, *overrides):
    recipe, own = (RECIPES | OTHERS)[domain]
    domain = domain.partition("-")[0]
    option, make = made.FOLDERS[domain]
    data = folder / domain
    if not data.exists():
        make(data)
    fixed = [f"recipe={recipe}", f"backend={backend}", f"dataset={option}", f"dataset.path={data}"]
    models = [word for word in own if word.startswith("model=")]
    length = [f"trainer.max_steps={STEPS}", "trainer.max_epochs=100000", "trainer.validate_every=99999"]
    components = [LAYERS.sub("ers=1", word) for word in tiny.components(*fixed, *models)]
    small = [*components, *tiny.SHORT, *length, "trainer.accumulate=2", "trainer.precision=64"]
    always = ["trainer.keep=1000", "trainer.ema_decay=0.9"]
    return [sys.executable, "-m", "toolkit.run", *fixed, *small, *own, *always, f"run_dir={run}", *overrides]


def train(folder, domain, backend, run, *overrides, environment=(), code=0):
    done = subprocess.run(
        command(folder, domain, backend, run, *overrides),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | dict(environment),
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def single(folder):
    """A function that gives the run of a domain and backend on one device, made once."""

    def single(domain, backend):
        run = folder / f"{domain}-{backend}"
        if not run.exists():
            train(folder, domain, backend, run)
        return run

    return single


def logged(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return np.array([(row["loss"], row["grad_norm"], row["lr"]) for row in found if row["split"] == "train"])


def last(run):
    checkpoint = run / "checkpoints" / json.loads((run / "checkpoints" / "index.json").read_text())["last"]
    averages = load_file(checkpoint / "ema.safetensors")
    weights = load_file(checkpoint / "model.safetensors") | load_file(checkpoint / "optimizer.safetensors")
    return weights | {f"average of {name}": array for name, array in averages.items()}


def assert_same(one, other, since=0):
    """Two runs had the same steps, and hold the same weights, moments and averages, which measure the same."""
    ours, theirs = logged(one), logged(other)
    assert len(ours) == len(theirs) == STEPS
    np.testing.assert_allclose(theirs[since:], ours[since:], rtol=TOLERANCE)
    ours, theirs = last(one), last(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        # gradients that cancel out, as a bias before a batch norm has, are rounding alone
        np.testing.assert_allclose(theirs[name], array, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    ours, theirs = (json.loads((run / "results.json").read_text())["metrics"] for run in (one, other))
    assert ours.keys() == theirs.keys() == {"validation", "test"}
    for split, values in ours.items():
        assert theirs[split] == pytest.approx(values, rel=TOLERANCE)


def half(run, copy):
    """A copy of a run that was killed after two steps."""
    shutil.copytree(run, copy)
    for checkpoint in (copy / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > 2:
            shutil.rmtree(checkpoint)
    return copy


@pytest.mark.parametrize(
    "backend, how", [("torch", "trainer.devices=2"), ("torch", "trainer=fsdp"), ("tf", "trainer.devices=2")]
)
def test_two_devices_have_the_trajectory_of_one(folder, single, backend, how, tmp_path):
    done = train(folder, "speech", backend, tmp_path / "two", how)
    assert_same(single("speech", backend), tmp_path / "two")
    assert done.stdout.count("run folder: ") == 1 and done.stderr == ""


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_two_devices_that_share_the_weights_have_the_trajectory_of_one(folder, name, tmp_path):
    train(folder, name, "torch", tmp_path / "one")
    train(folder, name, "torch", tmp_path / "two", "trainer=fsdp")
    assert_same(tmp_path / "one", tmp_path / "two")


def test_each_of_two_devices_holds_half_of_what_one_does(folder, single, tmp_path):
    words = command(folder, "images", "torch", single("images", "torch"))[3:]
    one = benchmarked(tmp_path / "one", words, 1)
    copies = benchmarked(tmp_path / "copies", [*words, "trainer=ddp"], 2)
    parts = benchmarked(tmp_path / "parts", [*words, "trainer=fsdp"], 2)
    (whole,) = one
    assert copies == [whole, whole]
    assert sum(parts) == whole and max(parts) < 0.55 * whole


def benchmarked(folder, words, devices):
    """Bytes that each process holds after a step, in the order of the ranks."""
    folder.mkdir()
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if devices == 2 else []
    script = ["benchmarks/devices.py", "--train", str(folder), "1", *words]
    done = subprocess.run([sys.executable, *start, *script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [int(np.load(file)) for file in sorted(folder.glob("held-*"))]


def test_what_two_devices_share_one_of_the_other_backend_goes_on_with(folder, single, tmp_path):
    train(folder, "images", "torch", tmp_path / "two", "trainer=fsdp")
    assert_same(single("images", "torch"), tmp_path / "two")
    run = half(tmp_path / "two", tmp_path / "half")
    train(folder, "images", "tf", run, "resume=auto")
    assert_same(single("images", "torch"), run)


@pytest.mark.long
@pytest.mark.parametrize(
    "backend, how", [("torch", "trainer.devices=2"), ("torch", "trainer=fsdp"), ("tf", "trainer.devices=2")]
)
def test_two_devices_go_on_with_a_run_of_one(folder, single, backend, how, tmp_path):
    run = half(single("translation", backend), tmp_path / "run")
    done = train(folder, "translation", backend, run, "resume=auto", how)
    assert "trainer.devices 1 -> 2" in done.stdout and "at step 2" in done.stdout
    assert_same(single("translation", backend), run)


@pytest.mark.parametrize("trainer", ["ddp", pytest.param("fsdp", marks=pytest.mark.long)])
def test_a_killed_process_ends_the_run_and_one_device_goes_on(folder, single, trainer, tmp_path):
    """torch's run of two processes; TensorFlow has one, whose end is that of any run (test_run.py)."""
    arguments = command(folder, "images", "torch", tmp_path, f"trainer={trainer}", "trainer.max_steps=100000")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = begun(process, tmp_path)
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1 and "process 1 of 2 was killed by SIGKILL" in errors, errors
    assert not any(os.path.exists(f"/proc/{child}") for child in children)

    run = half(tmp_path, tmp_path / "half")
    train(folder, "images", "torch", run, "resume=auto")
    assert_same(single("images", "torch"), run)


def begun(process, run):
    """The processes of a run, once it has left a checkpoint."""
    index, until = run / "checkpoints" / "index.json", time.monotonic() + 100
    while not index.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) == 2, process.communicate()
    return children


def test_a_signal_reaches_every_process_once(folder, tmp_path):
    arguments = command(folder, "images", "torch", tmp_path, "trainer.devices=2", "trainer.max_steps=100000")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = begun(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors == f"interrupted by signal 15; a checkpoint was left, go on with resume={tmp_path}\n"
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
    stopped = json.loads((tmp_path / "checkpoints" / "index.json").read_text())["last"]
    assert len(logged(tmp_path)) == int(stopped.removeprefix("step-"))


@pytest.mark.long
def test_several_machines_in_tf_and_one_device_goes_on(folder, single, tmp_path):
    """Two processes, each of which stands for a machine."""
    ports = free_ports(2)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    workers = [
        subprocess.Popen(
            command(folder, "images", "tf", tmp_path / "run", "trainer=multi_worker"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})},
        )
        for i in range(2)
    ]
    found = [worker.communicate(timeout=200) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], found
    assert_same(single("images", "tf"), tmp_path / "run")
    assert found[1][0] == "", "only the first shows what they do"

    run = half(tmp_path / "run", tmp_path / "half")
    train(folder, "images", "tf", run, "resume=auto", "trainer.nodes=1")
    assert_same(single("images", "tf"), run)


@pytest.mark.long
def test_several_machines_in_torch(folder, single, tmp_path):
    """Two torchruns, each of which stands for a machine."""
    (port,) = free_ports(1)
    torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
    machines = []
    for rank in range(2):
        python, *words = command(folder, "images", "torch", tmp_path / "run", "trainer.nodes=2")
        start = [python, *torchrun, "--master-port", str(port), "--node-rank", str(rank), *words]
        machines.append(subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    found = [machine.communicate(timeout=300) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], found
    assert_same(single("images", "torch"), tmp_path / "run")
    assert "run folder: " in found[0][0] and "run folder: " not in found[1][0]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]


def test_bad_data_are_said_once(folder, tmp_path):
    nowhere = f"dataset.path={tmp_path / 'nowhere'}"
    began = time.monotonic()
    done = train(folder, "images", "torch", tmp_path / "run", "trainer.devices=2", nowhere, code=2)
    assert time.monotonic() - began < ranks.GRACE, "the other process waits for the first"
    assert done.stderr.count("no such folder") == 1 and "Traceback" not in done.stderr, done.stderr


class OneOfThree(test_loop.Engine):
    """Another of the three processes is asked to stop in the third step."""

    ranks = 3

    def __init__(self, rank):
        super().__init__()
        self.rank = rank

    def total(self, values):
        if len(values) == 1:
            self.waited = list(self.folder.glob("checkpoints/step-*"))
            return values
        return values + np.array([0.0, len(self.seen) == 3])  # SIGINT, SIGTERM


@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_end_after_the_step_in_which_one_was_asked_to(rank, tmp_path):
    engine, run = OneOfThree(rank), test_loop.run(validate_every=99)
    engine.folder = tmp_path
    folder = Onlooker(tmp_path) if rank else RunFolder(tmp_path)
    with pytest.raises(Interrupted) as caught:
        loop.fit(run, engine, test_loop.TRAIN, test_loop.VALID, None, folder, Progress())
    folder.close()
    assert caught.value.code == 143 and len(engine.seen) == 3
    assert len(engine.waited) == (rank == 0), "they wait until the first has saved"
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ([] if rank else ["step-00000003"])
    assert not rank or not list(tmp_path.iterdir()), "only the first writes"


def joined(ranks):
    """What the loop needs of the engines of so many processes, each of which is a thread here."""
    sent, barrier = [np.zeros(0)] * ranks, threading.Barrier(ranks)

    def total(rank, values):
        sent[rank] = np.asarray(values, np.float64)
        barrier.wait(20)
        summed = np.sum(sent, axis=0)
        barrier.wait(20)
        return summed

    return [SimpleNamespace(rank=rank, ranks=ranks, total=functools.partial(total, rank)) for rank in range(ranks)]


def test_rows_of_all_processes_are_gathered_in_the_order_of_the_ranks():
    decoded = [[[0, {"hypothesis": "zażółć", "score": 0.1}]], [], [[2, {"score": float("-inf")}], [1, {"top": ["a"]}]]]
    engines, found = joined(3), {}

    def gather(rank):
        found[rank] = loop.gather(engines[rank], decoded[rank])

    threads = [threading.Thread(target=gather, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[rank] for rank in range(3)] == [[*decoded[0], *decoded[2]]] * 3


def test_the_first_process_alone_takes_over_the_index_of_a_run(tmp_path, monkeypatch):
    def write(*_):
        raise AssertionError("two processes would write at the same time")

    monkeypatch.setattr(job.checkpoint, "point", write)
    monkeypatch.setattr(job.checkpoint, "adopt", write)
    found = SimpleNamespace(path=tmp_path / "checkpoints" / "step-00000002", state=None, progress=Progress(step=2))
    engine = SimpleNamespace(load=lambda state: None)
    assert job._take_over(SimpleNamespace(resume="auto"), engine, found, Progress(), Onlooker(tmp_path)).step == 2
    with pytest.raises(AssertionError, match="two processes"):
        job._take_over(SimpleNamespace(resume="auto"), engine, found, Progress(), RunFolder(tmp_path))


REFUSED = {
    "backend=tf trainer=ddp": "found ddp beside backend=tf, which can do mirrored, tpu and multi_worker",
    "backend=tf trainer=fsdp": "found fsdp beside backend=tf, which can do mirrored, tpu and multi_worker",
    "backend=torch trainer=mirrored": "found mirrored beside backend=torch, which can do ddp and fsdp",
    "backend=torch trainer=tpu": "trainer.strategy: found tpu beside backend=torch, which can do ddp and fsdp",
    "backend=tf trainer=tpu trainer.nodes=2": "trainer.nodes: found 2 with strategy=tpu, expected 1",
    "backend=tf trainer=tpu trainer.precision=64": "trainer.precision: found 64 with strategy=tpu, expected bf16 or 32",
    "backend=tf trainer=tpu trainer.precision=16": "trainer.precision: found 16 with strategy=tpu, expected bf16 or 32",
    "backend=tf trainer=tpu trainer.static_shapes=false": "trainer.static_shapes: found false with strategy=tpu",
    "backend=tf trainer=tpu trainer.loop=stock trainer.devices=1": "trainer.loop: found stock with strategy=tpu",
    "backend=tf trainer=mirrored trainer.nodes=2": "found mirrored with trainer.nodes=2, expected multi_worker\n",
    "trainer=stock trainer.devices=2": "trainer.loop: found stock with 2 devices, expected neutral",
    "trainer=fsdp trainer.loop=stock": "trainer.loop: found stock with 2 devices, expected neutral",
    "trainer.devices=2 features.mixup=0.2": "features.mixup: found 0.2 with 2 devices, expected 0",
    "trainer.nodes=2 model.native_dropout=true": "model.native_dropout: found true with 2 devices, expected false",
    "trainer.devices=0": "trainer.devices: found 0, expected at least 1",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_runs(words):
    with pytest.raises(ConfigError) as error:
        config.check(["recipe=image_classification", *words.split()])
    assert REFUSED[words] in f"{error.value}\n"


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
    assert ranks.started(checked(*words), environment) == expected


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


@pytest.mark.parametrize("number, backend, processes", [(0, "torch", 8), (1, "tf", 1)])
def test_the_scripts_for_slurm_start_what_a_process_takes_itself_for(tmp_path, number, backend, processes):
    """Those of docs/guide/devices.md, with stand-ins for Slurm's commands; each job ends as one that is out of time."""
    text = (Path(__file__).parents[2] / "docs" / "guide" / "devices.md").read_text()
    script = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)[number]
    assert f"--nodes=4\n#SBATCH --ntasks-per-node={processes}\n#SBATCH --gpus-per-node=8\n" in script
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_NNODES": "4", "SLURM_NTASKS_PER_NODE": str(processes), "SLURM_JOB_ID": "1234567"}
    slurm |= {"SLURM_JOB_NODELIST": "host", "SLURM_CPUS_PER_TASK": "8", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ | slurm, timeout=60)
    assert done.returncode == 143
    assert (tmp_path / "asked").read_text() == "requeue 1234567\n"
    started = [json.loads(line) for line in (tmp_path / "started").read_text().splitlines()]
    words = started[0][0]
    assert words[:2] == ["-m", "toolkit.run"] and f"backend={backend}" in words
    run = checked(*(word for word in words[2:] if not word.startswith("recipe=")))
    assert [ranks.started(run, told) for _, told in started] == list(range(4 * processes))
    if backend == "tf":
        cluster = json.loads(started[0][1]["TF_CONFIG"])["cluster"]
        assert cluster == {"worker": [f"host{n}:19567" for n in (1, 2, 3, 4)]}


@pytest.mark.parametrize("by", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
@pytest.mark.parametrize("words", [[], ["trainer.devices=3"]])
def test_another_number_of_processes_is_refused(words, by):
    with pytest.raises(ConfigError, match=f"{by}: started as one of 2 processes"):
        ranks.started(checked(*words), {by: "2", "RANK": "0"})


@pytest.mark.parametrize("backend, how", [("torch", "torchrun --nnodes 2"), ("tf", "TF_CONFIG")])
def test_several_machines_are_started_by_something_else(backend, how):
    with pytest.raises(ConfigError, match=how):
        ranks.launched(checked("trainer.nodes=2", f"backend={backend}"))


@pytest.mark.parametrize("gpus, fine", [(0, True), (1, False), (3, False), (4, True), (8, True)])
def test_more_devices_than_gpus_are_refused(gpus, fine):
    with contextlib.nullcontext() if fine else pytest.raises(ConfigError, match="found 4, expected at most"):
        check_gpus(4, gpus)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 64])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_parts_are_the_whole_batch(count, parts):
    batch = {"example": np.arange(count), "partners": np.arange(count)}
    cut = [rows(batch, *rows_of(part, parts, count)) for part in range(parts)]
    assert np.concatenate([part["example"] for part in cut]).tolist() == list(range(count))
    sizes = [len(part["example"]) for part in cut]
    assert max(sizes) - min(sizes) <= 1
    assert not any(part["partners"].any() for part in cut), "no row may point beyond its part"


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_a_process_makes_its_own_rows_of_a_batch_and_pads_them_as_the_whole(ranks):
    sides = [translation.Tokens.of([range(n) for n in lengths]) for lengths in ([1, 2, 9, 3, 4], [4, 7, 2, 1, 3])]
    collator, positions = translation.Collator(*sides), np.array([4, 2, 1, 0, 3])
    whole, amounts = collator(positions, 0), Seq2Seq().amounts
    parts = [Part(collator, rank, ranks, amounts)(positions, 0) for rank in range(ranks)]
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts if part["share"]]), values)
    for part in parts:
        own = slice(int(part["before"]), int(part["before"]) + len(part["example"]))
        assert not part["share"] or part["share"] == amounts(whole)[own].sum() / amounts(whole).sum()


@pytest.mark.parametrize("first", [0, 1, 2, 15, 16])
def test_the_dropout_of_a_part_is_that_of_the_whole(first):
    whole = layers.dropout_mask(64, 12345, 0.3)
    np.testing.assert_array_equal(layers.dropout_mask(17, 12345, 0.3, first), whole[first : first + 17])
