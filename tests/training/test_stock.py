"""Runs of a stock loop: the steps that a resumed one repeats, and a batch that cannot be made."""

import shutil

import pytest

from tests.support.training import TARGET, TRAIN, VALID, Engine, log, rewind, run
from toolkit.runs import checkpoint
from toolkit.runs.folder import RunFolder
from toolkit.training.progress import Progress
from toolkit.training.stock import session as stock

BATCHES = len(TRAIN.plan)
EPOCHS = 3


class StockEngine(Engine):
    """An engine whose stock loop is a plain one."""

    def set_step(self, lr, batches_done):
        self.now = lr, batches_done

    def update_averages(self):
        pass

    def fit_stock(self, session):
        ended = False
        while not ended:
            for positions in session.planned():
                session.batch_begin()
                lr, batches_done = self.now
                result = self.train_step([{"example": positions, "epoch": session.progress.epoch}], lr, batches_done)
                if session.batch_end(result.loss):
                    break
            ended = session.epoch_end()


def fit(path, engine, at=None, **trainer):
    folder, at = RunFolder(path), at or Progress()
    chosen = run(max_epochs=EPOCHS, validate_every=1, checkpoint_every=1, **trainer)
    try:
        stock.fit(stock.StockSession(chosen, engine, TRAIN, VALID, TARGET, folder, at))
    finally:
        folder.close()
    return at


def resume(path, step):
    """Go on from the checkpoint of a step as it was before a validation, and return the epochs of the new steps."""
    for later in (path / "checkpoints").glob("step-*"):
        if int(later.name.removeprefix("step-")) > step:
            shutil.rmtree(later)
    found = checkpoint.load(path / "checkpoints" / f"step-{step:08d}")
    rewind(path, found.progress)
    engine = StockEngine()
    engine.load(found.state)
    fit(path, engine, found.progress)
    return [batches[0][1] for batches, *_ in engine.seen]


@pytest.fixture
def killed(tmp_path):
    """A run that was killed in the validation after its first epoch."""

    class Killed(StockEngine):
        def evaluate(self, batch):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, Killed())
    return tmp_path


def test_killed_before_a_validation_it_validates_and_goes_on_with_the_next_epoch(killed):
    assert resume(killed, BATCHES) == [1] * BATCHES + [2] * BATCHES
    assert [row["step"] for row in log(killed) if row["split"] == "validation"] == [BATCHES * n for n in (1, 2, 3)]


def test_killed_in_the_middle_of_an_epoch_it_repeats_that_epoch(killed):
    assert resume(killed, 2)[:BATCHES] == [0] * BATCHES


def test_a_finished_run_is_only_measured(tmp_path):
    fit(tmp_path, StockEngine())
    assert resume(tmp_path, EPOCHS * BATCHES) == []


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_a_batch_that_cannot_be_made_names_its_examples(backends, trained, backend, tmp_path):
    words = trained.arguments("image_classification", "trainer=stock", f"backend={backend}", f"run_dir={tmp_path}")
    done = backends[backend].run("tests.workers.unmakeable", *words, code=1)
    assert "train: ValueError: an image of no size; the batch: " in done.stderr.splitlines()[-1]
    assert "The last checkpoint is intact" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_a_run_that_fails_while_batches_are_being_made_ends(backends, trained, backend, tmp_path):
    words = trained.arguments("image_classification", "trainer=stock", f"backend={backend}", f"run_dir={tmp_path}")
    done = backends[backend].run("tests.workers.slowly_made", *words, code=1, timeout=60)
    assert done.stderr.endswith("ValueError: no step\n")
