"""Several devices that share each batch: the trajectory of one device, and who resumes it."""

import contextlib
import json
import os
import signal
import socket
import subprocess

import numpy as np
import pytest

from tests.support.backend import ROOT
from tests.support.devices import OTHERS, assert_same, begun, command, half, own_cache, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with own_cache(tmp_path_factory) as folder:
        yield folder


@pytest.fixture(scope="module")
def single(backends, folder):
    """A function that gives the run of a domain and backend on one device, made once."""

    def single(domain, backend):
        run = folder / f"{domain}-{backend}"
        if not run.exists():
            train(backends, folder, domain, backend, run)
        return run

    return single


@pytest.mark.parametrize(
    "domain, backend, how",
    [
        ("speech", "torch", "trainer.devices=2"),
        pytest.param("speech", "torch", "trainer=fsdp", marks=pytest.mark.long),
        pytest.param("speech", "tf", "trainer.devices=2", marks=pytest.mark.long),
        ("images", "tf", "trainer.devices=2"),
    ],
)
def test_two_devices_have_the_trajectory_of_one(
    backends, folder, single, domain, backend, how, tmp_path, temporary, monkeypatch
):
    one = single(domain, backend)
    monkeypatch.setenv("TMPDIR", str(temporary))
    done = train(backends, folder, domain, backend, tmp_path / "two", how)
    assert_same(one, tmp_path / "two")
    assert list(temporary.iterdir()) == []
    assert done.stdout.count("run folder: ") == 1 and done.stderr == ""


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_two_devices_that_share_the_weights_have_the_trajectory_of_one(backends, folder, name, tmp_path):
    train(backends, folder, name, "torch", tmp_path / "one")
    train(backends, folder, name, "torch", tmp_path / "two", "trainer=fsdp")
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.long
def test_each_of_two_devices_holds_half_of_what_one_does(backends, folder, single, tmp_path):
    """In bytes after a step."""
    words = command(folder, "images", "torch", single("images", "torch"))[3:]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    backends["torch"].run("benchmarks.devices", "--train", one, 1, *words, cwd=ROOT)
    two.mkdir()
    torchrun = ("--standalone", "--nproc-per-node", 2, "benchmarks/devices.py", "--train", two, 1)
    backends["torch"].run("torch.distributed.run", *torchrun, *words, "trainer=fsdp", cwd=ROOT)
    (whole,), parts = ([int(np.load(file)) for file in sorted(run.glob("held-*"))] for run in (one, two))
    assert len(parts) == 2 and sum(parts) == whole and max(parts) < 0.55 * whole


@pytest.mark.long
def test_what_two_devices_share_one_of_the_other_backend_goes_on_with(backends, folder, single, tmp_path):
    train(backends, folder, "images", "torch", tmp_path / "two", "trainer=fsdp")
    assert_same(single("images", "torch"), tmp_path / "two")
    run = half(tmp_path / "two", tmp_path / "half")
    train(backends, folder, "images", "tf", run, "resume=auto")
    assert_same(single("images", "torch"), run)


@pytest.mark.long
@pytest.mark.parametrize(
    "backend, how", [("torch", "trainer.devices=2"), ("torch", "trainer=fsdp"), ("tf", "trainer.devices=2")]
)
def test_two_devices_go_on_with_a_run_of_one(backends, folder, single, backend, how, tmp_path):
    run = half(single("translation", backend), tmp_path / "run")
    done = train(backends, folder, "translation", backend, run, "resume=auto", how)
    assert "trainer.devices 1 -> 2" in done.stdout and "at step 2" in done.stdout
    assert_same(single("translation", backend), run)


@pytest.mark.parametrize("trainer", ["ddp", pytest.param("fsdp", marks=pytest.mark.long)])
def test_a_killed_process_ends_the_run_and_one_device_goes_on(backends, folder, single, trainer, tmp_path):
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
    train(backends, folder, "images", "torch", run, "resume=auto")
    assert_same(single("images", "torch"), run)


@pytest.mark.long
def test_several_machines_in_tf_and_one_device_goes_on(backends, folder, single, tmp_path):
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
    train(backends, folder, "images", "tf", run, "resume=auto", "trainer.nodes=1")
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
