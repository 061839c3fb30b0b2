import json
import struct

import pytest
from tensorboardX.proto import event_pb2

from toolkit.checkpoint import Progress, State
from toolkit.errors import RunError
from toolkit.runfolder import RunFolder


def steps(path):
    return [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_drops_later_rows_and_the_one_that_a_kill_cut_off(tmp_path):
    folder = RunFolder(tmp_path)
    at = Progress(step=2)
    for step in (1, 2, 3):
        folder.record(step, 0, "train", {"loss": 1.0})
        if step == 2:
            folder.save(State({}, {}), at, 1)
    folder.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "epo')
    folder = RunFolder(tmp_path)
    folder.rewind(at)
    folder.record(3, 0, "train", {"loss": 2.0})
    folder.close()
    assert steps(tmp_path) == [1, 2, 3]


def events(file):
    """The records of an event file: length, checksum, event, checksum."""
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
    assert 4 in [event.step for event in found if event.session_log.status == event_pb2.SessionLog.START]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"run_dir: .*file.run cannot be written"):
        RunFolder(tmp_path / "file" / "run")
