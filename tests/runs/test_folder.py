import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from inspect import isfunction
from types import SimpleNamespace

import pytest

from tests.support.backend import ROOT
from toolkit.errors import RunError
from toolkit.runs import checkpoint
from toolkit.runs.folder import Onlooker, RunFolder
from toolkit.training.progress import Progress, State


def steps(path):
    return [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_drops_later_rows_and_the_one_that_a_kill_cut_off(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.record(step, 0, "train", {"loss": 1.0})
        if step == 2:
            saved = folder.save(State({}, {}), Progress(step=2), 1)
    folder.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "epo')
    folder = RunFolder(tmp_path)
    folder.rewind(checkpoint.load(saved).progress)
    folder.record(3, 0, "train", {"loss": 2.0})
    folder.close()
    assert steps(tmp_path) == [1, 2, 3]


def events(file):
    """The records of an event file: length, checksum, event, checksum."""
    from tensorboardX.proto import event_pb2  # imports torch

    blob, at, found = file.read_bytes(), 0, []
    while at < len(blob):
        (size,) = struct.unpack_from("<Q", blob, at)
        found.append(event_pb2.Event.FromString(blob[at + 12 : at + 12 + size]))
        at += size + 16
    return found


def test_tensorboard_hides_what_a_resumed_run_writes_again(tmp_path):
    for step in (7, 4):
        folder = RunFolder(tmp_path)
        folder.record(step, 0, "train", {"loss": 1.0})
        folder.close()
    found = [event for file in (tmp_path / "tensorboard").glob("events*") for event in events(file)]
    assert 4 in [event.step for event in found if event.session_log.status == event.session_log.START]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"run_dir: .*file.run cannot be written"):
        RunFolder(tmp_path / "file" / "run")


def test_a_rank_that_must_not_write_has_every_method_and_writes_nothing(tmp_path):
    methods = {name for name, value in vars(RunFolder).items() if isfunction(value) and not name.startswith("_")}
    assert "write_results" in methods
    assert methods <= vars(Onlooker).keys(), "it would write as the first rank does"
    folder = Onlooker(tmp_path)
    folder.say("hello")
    folder.write_results({})
    assert not list(tmp_path.iterdir())


# --- one run at a time ---


@pytest.fixture
def holder(tmp_path):
    """The id of a process that holds ``tmp_path``, with a child; both are gone afterwards."""
    command = [sys.executable, "-m", "tests.workers.holder", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    yield int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_at_once_and_the_holder_is_named(tmp_path, holder):
    began = time.monotonic()
    with pytest.raises(RunError) as caught:
        RunFolder(tmp_path)
    assert time.monotonic() - began < 0.5
    for said in (str(tmp_path), f"process {holder} on {socket.gethostname()} since 20", "holder.py "):
        assert said in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock"]
    with pytest.raises(RunError, match=f"process {holder}"):  # and the one that was refused has changed nothing
        RunFolder(tmp_path)


def test_without_the_lock_a_second_run_is_let_in(tmp_path, holder, monkeypatch):
    monkeypatch.setattr("toolkit.runs.folder.hold", lambda lock, folder: "")
    RunFolder(tmp_path).close()


def test_the_lock_of_a_run_that_was_killed_heals_itself_though_a_child_lives_on(tmp_path, holder):
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    folder = RunFolder(tmp_path)
    assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    folder.close()


def test_a_folder_is_free_once_its_run_is_over(tmp_path):
    RunFolder(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; from toolkit.runs.folder import RunFolder; RunFolder(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=30)


@pytest.mark.parametrize("missing", ["module", "filesystem"])
def test_where_there_are_no_locks_it_is_said(tmp_path, monkeypatch, capsys, missing):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fake = None if missing == "module" else SimpleNamespace(lockf=refuse, LOCK_EX=0, LOCK_NB=0)
    monkeypatch.setattr("toolkit.runs.folder.fcntl", fake)
    RunFolder(tmp_path).close()
    assert "no file locks" in capsys.readouterr().out


# --- logs ---


def test_logs_are_on_the_disk_before_the_checkpoint_that_knows_their_length(tmp_path, monkeypatch):
    synced: list[object] = []
    saved: list[Progress] = []

    def save(folder, state, progress, keep, about):
        synced.append("checkpoint")
        saved.append(progress)

    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(checkpoint, "save", save)
    folder = RunFolder(tmp_path)
    folder.say("hello")
    folder.record(1, 0, "train", {"loss": 1.0})
    at = Progress(step=1)
    folder.save(State({}, {}), at, 1)
    folder.close()
    before = synced[: synced.index("checkpoint")]
    assert {(tmp_path / name).stat().st_ino for name in ("run.log", "metrics.jsonl")} <= set(before)
    assert saved[0].log_bytes == {"metrics.jsonl": (tmp_path / "metrics.jsonl").stat().st_size}
    assert not at.log_bytes, "the caller's own is left as it is"


def test_a_row_that_the_disk_refuses_names_the_log(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.record(1, 0, "train", {"loss": 1.0})

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder._files["metrics.jsonl"], "write", full, raising=False)
    with pytest.raises(
        RunError, match=r"metrics.jsonl: No space left on device; needs \d\d bytes, [\d,]+ bytes are free"
    ):
        folder.record(2, 0, "train", {"loss": 1.0})
    folder.close()
