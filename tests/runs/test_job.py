"""What a run takes over from an earlier one."""

from types import SimpleNamespace

import pytest

from toolkit.runs import job
from toolkit.runs.folder import Onlooker, RunFolder
from toolkit.training.progress import Progress


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
