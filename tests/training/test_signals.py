"""SIGINT and SIGTERM during a training: flags at first, the end at the second time, and agreed by all ranks."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.support.training import TRAIN, VALID, Engine, fit, run
from toolkit.errors import Interrupted
from toolkit.runs.folder import Onlooker, RunFolder
from toolkit.training import loop
from toolkit.training.progress import Progress
from toolkit.training.session import Session


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(first, second):
    command = [sys.executable, "-m", "tests.workers.signals", str(int(first)), str(int(second))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"caught {int(first)}\n" and done.returncode == -second


def test_outside_the_main_thread_a_run_trains_without_handlers(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fit, tmp_path, Engine()).result(60).step
    assert signal.getsignal(signal.SIGTERM) is before


class OneOfThree(Engine):
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
    engine = OneOfThree(rank)
    engine.folder = tmp_path
    folder = Onlooker(tmp_path) if rank else RunFolder(tmp_path)
    with pytest.raises(Interrupted) as caught:
        loop.fit(Session(run(validate_every=99), engine, TRAIN, VALID, None, folder, Progress()))
    folder.close()
    assert caught.value.code == 143 and len(engine.seen) == 3
    assert len(engine.waited) == (rank == 0), "they wait until the first has saved"
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ([] if rank else ["step-00000003"])
    assert not rank or not list(tmp_path.iterdir()), "only the first writes"
