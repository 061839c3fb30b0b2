"""The neutral loop, driven with an engine that needs no framework."""

import json
import os
import signal
from types import SimpleNamespace

import pytest

from tests.support.training import TRAIN, VALID, Engine, Task, fit, log, rewind
from toolkit.data.batch import NoBatch
from toolkit.data.split import Data
from toolkit.errors import Interrupted, RunError
from toolkit.runs import checkpoint
from toolkit.schedules.cosine.spec import Cosine
from toolkit.training.progress import Progress


@pytest.mark.parametrize("accumulate", [1, 2])
def test_validations_after_steps_come_once_and_cost_no_batch(tmp_path, accumulate):
    engine, plain = Engine(), Engine()
    fit(tmp_path / "steps", engine, accumulate=accumulate, validate_steps=3, checkpoint_every=3)
    fit(tmp_path / "epochs", plain, accumulate=accumulate)
    assert engine.seen == plain.seen
    validated = [row["step"] for row in log(tmp_path / "steps") if row["split"] == "validation"]
    assert validated == sorted({*range(3, len(engine.seen), 3), len(engine.seen)})


def test_a_run_that_goes_on_from_a_validation_after_steps_does_not_repeat_it(tmp_path):
    fit(tmp_path, Engine(), validate_steps=3, max_steps=9)
    found = checkpoint.load(tmp_path / "checkpoints" / "step-00000006")
    rewind(tmp_path, found.progress)
    engine = Engine()
    engine.load(found.state)
    fit(tmp_path, engine, found.progress, validate_steps=3, max_steps=9)
    assert [row["step"] for row in log(tmp_path) if row["split"] == "validation"] == [3, 6, 9]


class Endless(Data):
    """As a stream: it does not know how many steps its epochs have."""

    def steps(self, trainer):
        return 10_000


def test_a_run_that_ends_by_its_epochs_is_measured_and_saved(tmp_path):
    endless = Endless(TRAIN.split, TRAIN.plan, None)
    at = fit(tmp_path, Engine(), train=endless, max_epochs=3, validate_every=99, checkpoint_every=9999)
    assert (at.step, at.validated) == (3 * len(TRAIN.plan), at.step)
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == [f"step-{at.step:08d}"]


class Pools:
    """A stream whose epochs have two pools, of which the first has no usable example."""

    def steps(self, trainer):
        return 6

    def batches_done(self, at, accumulate):
        return at.step

    def source(self, engine, at):
        planned = TRAIN.plan.epoch(at.epoch)[:3] if at.stream else []
        return SimpleNamespace(split=TRAIN.split, collator=None, held=None, batches=lambda epoch: planned)

    def turn(self, engine, at):
        if at.batch >= len(self.source(engine, at).batches(at.epoch)):
            epoch, stream = (at.epoch + 1, {}) if at.stream else (at.epoch, {"pool": 1})
            at.batch, at.epoch, at.stream = 0, epoch, stream


def test_a_pool_without_a_usable_example_costs_neither_a_step_nor_a_validation(tmp_path):
    engine = Engine()
    fit(tmp_path, engine, train=Pools(), validate_every=1)
    batches = [b.tolist() for epoch in range(2) for b in TRAIN.plan.epoch(epoch)[:3]]
    assert [group for group, *_ in engine.seen] == [[(b, i // 3)] for i, b in enumerate(batches)]
    assert [row["step"] for row in log(tmp_path) if row["split"] == "validation"] == [3, 6]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_batch_once_an_epoch_with_the_schedule(tmp_path, accumulate):
    engine = Engine()
    at = fit(tmp_path, engine, accumulate=accumulate)
    batches = len(TRAIN.plan)
    steps = -(-batches // accumulate)
    assert at.step == len(engine.seen) == 4 * steps and (at.epoch, at.batch) == (4, 0)
    for epoch in range(4):
        mine = [b for group, _, _ in engine.seen[epoch * steps : (epoch + 1) * steps] for b, e in group if e == epoch]
        assert mine == [b.tolist() for b in TRAIN.plan.epoch(epoch)]
    schedule = Cosine(warmup_steps=3)
    assert [lr for _, lr, _ in engine.seen] == [0.1 * schedule.factor(i, 4 * steps) for i in range(4 * steps)]
    rows = log(tmp_path)
    assert [r["step"] for r in rows if r["split"] == "train"] == list(range(1, 4 * steps + 1))
    assert [r["epoch"] for r in rows if r["split"] == "validation"] == [2, 4]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stop", range(1, 4 * 8, 3))
def test_resumed_at_any_step_it_ends_as_the_unbroken_run(tmp_path, stop, accumulate):
    whole = Engine()
    fit(tmp_path / "whole", whole, accumulate=accumulate)
    if stop >= len(whole.seen):
        stop = len(whole.seen) - 1

    first = Engine(at_step={stop: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    with pytest.raises(Interrupted) as caught:
        fit(tmp_path / "broken", first, accumulate=accumulate)
    assert caught.value.code == 143 and len(first.seen) == stop

    found = checkpoint.load(checkpoint.find(tmp_path / "broken" / "checkpoints", "last"))
    second, at = Engine(), found.progress
    second.load(found.state)
    rewind(tmp_path / "broken", at)
    fit(tmp_path / "broken", second, at, accumulate=accumulate)
    assert first.seen + second.seen == whole.seen
    assert second.weight == whole.weight
    assert log(tmp_path / "broken") == log(tmp_path / "whole")


def test_a_signal_during_a_validation_is_heeded(tmp_path, monkeypatch):
    measure = Task.measure

    def interrupted(self, rows, target):
        os.kill(os.getpid(), signal.SIGTERM)
        return measure(self, rows, target)

    monkeypatch.setattr(Task, "measure", interrupted)
    with pytest.raises(Interrupted, match=f"resume={tmp_path}"):
        fit(tmp_path, Engine(), max_epochs=2)  # the last one
    assert checkpoint.find(tmp_path / "checkpoints", "last").name == f"step-{2 * len(TRAIN.plan):08d}"


def test_a_metric_that_is_not_a_number_does_not_stay_the_best(tmp_path, monkeypatch):
    values = iter([float("nan"), 0.5, 0.7])
    monkeypatch.setattr(Task, "measure", lambda self, rows, target: {"cer": next(values)})
    at = fit(tmp_path, Engine(), max_epochs=3, validate_every=1)
    assert at.best == 0.5 and at.best_step == 2 * len(TRAIN.plan)


def test_of_an_accuracy_the_larger_is_better(tmp_path, monkeypatch):
    values = iter([0.5, 0.7, 0.6])
    monkeypatch.setattr(Task, "monitor", "accuracy")
    monkeypatch.setattr(Task, "measure", lambda self, rows, target: {"accuracy": next(values)})
    at = fit(tmp_path, Engine(), max_epochs=3, validate_every=1)
    assert at.best == 0.7 and at.best_step == 2 * len(TRAIN.plan)


def test_a_position_beyond_the_epoch_ends_it(tmp_path):
    engine = Engine()
    at = fit(tmp_path, engine, Progress(step=5, epoch=3, batch=1000))
    assert (at.epoch, at.step) == (4, 5) and not engine.seen


def test_resume_from_a_regular_checkpoint_at_an_epochs_end(tmp_path):
    batches = len(TRAIN.plan)
    whole = Engine()
    fit(tmp_path / "a", whole, checkpoint_every=2 * batches)
    found = checkpoint.load(tmp_path / "a" / "checkpoints" / f"step-{2 * batches:08d}")
    second, at = Engine(), found.progress
    second.load(found.state)
    rewind(tmp_path / "a", at)
    fit(tmp_path / "a", second, at, checkpoint_every=2 * batches)
    assert second.weight == whole.weight


def test_max_steps_ends_in_the_middle_of_an_epoch_with_a_validation(tmp_path):
    at = fit(tmp_path, Engine(), max_steps=3)
    assert at.step == 3
    assert [r["split"] for r in log(tmp_path)] == ["train"] * 3 + ["validation"]


def test_a_tie_goes_to_the_lower_loss(tmp_path, monkeypatch):
    figures = [{"cer": 0.5, "loss": loss} for loss in (3.0, 1.0, 2.0)]
    values = iter([*figures, {"cer": 0.6, "loss": 0.0}])
    monkeypatch.setattr(Task, "measure", lambda self, rows, target: next(values))
    at = fit(tmp_path, Engine(), max_epochs=4, validate_every=1)
    assert (at.best, at.best_loss, at.best_step) == (0.5, 1.0, 2 * len(TRAIN.plan)) and at.stale == 2


def test_a_tie_with_a_value_of_unknown_loss_decides_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Task, "measure", lambda self, rows, target: {"cer": 0.5, "loss": 0.0})
    at = fit(tmp_path, Engine(), Progress(best=0.5, best_step=1), max_epochs=1, validate_every=1)
    assert at.best_step == 1 and at.stale == 1


def test_best_and_patience(tmp_path, monkeypatch):
    values = iter([0.5, 0.3, 0.4, 0.35, 0.1])
    monkeypatch.setattr(Task, "measure", lambda self, rows, target: {"cer": next(values)})
    at = fit(tmp_path, Engine(), max_epochs=20, validate_every=1, patience=2)
    assert at.epoch == 4 and at.best == 0.3 and at.best_step == 2 * len(TRAIN.plan)
    assert checkpoint.find(tmp_path / "checkpoints", "best").name == f"step-{at.best_step:08d}"


def test_a_loss_that_is_not_finite_names_the_examples(tmp_path):
    engine = Engine(bad_step=3)
    with pytest.raises(RunError) as caught:
        fit(tmp_path, engine)
    assert str(caught.value).startswith("step 3: ")
    for example in TRAIN.plan.epoch(0)[2]:
        assert f"u{example}" in str(caught.value)


def test_validation_shows_pairs(tmp_path, capsys):
    fit(tmp_path, Engine(), max_epochs=2)
    shown = (tmp_path / "run.log").read_text()
    assert shown.count("reference ") == shown.count("hypothesis ") == 3
    assert "cer" in shown and shown in capsys.readouterr().out


# --- what a kill may cut off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 2])
def test_a_validation_that_a_kill_cut_off_is_made_up_for(tmp_path, monkeypatch, cut):
    """The checkpoint of the step is there by then: at an epoch's end, and at the end of the run."""
    every = {"max_epochs": 2, "validate_every": 1, "checkpoint_every": len(TRAIN.plan)}
    fit(tmp_path / "whole", Engine(), **every)
    measure, calls = Task.measure, [0]

    def killed(self, rows, target):
        calls[0] += 1
        if calls[0] == cut:
            raise KeyboardInterrupt
        return measure(self, rows, target)

    monkeypatch.setattr(Task, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "broken", Engine(), **every)
    found = checkpoint.load(checkpoint.find(tmp_path / "broken" / "checkpoints", "last"))
    assert found.progress.step == cut * len(TRAIN.plan)
    engine = Engine()
    engine.load(found.state)
    rewind(tmp_path / "broken", found.progress)
    at = fit(tmp_path / "broken", engine, found.progress, **every)
    assert log(tmp_path / "broken") == log(tmp_path / "whole")
    assert (at.epoch, at.batch, at.validated) == (2, 0, at.step)


def test_a_run_that_is_over_is_not_validated_again(tmp_path):
    at = fit(tmp_path, Engine())
    rows = log(tmp_path)
    fit(tmp_path, Engine(), at)
    assert log(tmp_path) == rows


def test_every_step_leaves_the_ids_of_its_examples(tmp_path):
    fit(tmp_path / "on", Engine(), max_epochs=1, accumulate=2)
    rows = [json.loads(line) for line in (tmp_path / "on" / "examples.jsonl").read_text().splitlines()]
    planned = [[f"u{i}" for i in batch] for batch in TRAIN.plan.epoch(0)]
    assert [row["ids"] for row in rows] == [
        [u for batch in planned[i : i + 2] for u in batch] for i in range(0, len(planned), 2)
    ]
    assert [(row["step"], row["epoch"]) for row in rows] == [(i + 1, 0) for i in range(len(rows))]
    fit(tmp_path / "off", Engine(), max_epochs=1, log_examples=False)
    assert not (tmp_path / "off" / "examples.jsonl").exists()


class Failing(Engine):
    """Its loader makes no third batch; before that ``first`` is done."""

    def __init__(self, first=lambda: None, evaluating=False):
        super().__init__()
        self.first, self.evaluating = first, evaluating

    def batches(self, collator, batches, epoch):
        for i, batch in enumerate(batches):
            if (len(batches) == len(VALID.plan)) if self.evaluating else i == 2:
                self.first()
                raise NoBatch(batch.tolist(), "loader worker 0 was killed by SIGKILL")
            yield {"example": batch, "epoch": epoch}


@pytest.mark.parametrize("evaluating", [False, True])
def test_a_batch_that_cannot_be_made_ends_the_run_with_its_examples(tmp_path, evaluating):
    with pytest.raises(RunError) as caught:
        fit(tmp_path, Failing(evaluating=evaluating), checkpoint_every=2)
    batch = VALID.plan.in_order()[0] if evaluating else TRAIN.plan.epoch(0)[2]
    data = VALID if evaluating else TRAIN
    assert ", ".join(data.split.ids[i] for i in batch) in str(caught.value) and "SIGKILL" in str(caught.value)
    assert len(caught.value.problems) == 1
    found = checkpoint.load(checkpoint.find(tmp_path / "checkpoints", "last"))
    assert found.progress.step % 2 == 0 and found.progress.step > 0


@pytest.mark.parametrize("evaluating", [False, True])
def test_a_signal_that_ends_the_workers_too_interrupts_the_run(tmp_path, evaluating):
    engine = Failing(lambda: os.kill(os.getpid(), signal.SIGTERM), evaluating)
    with pytest.raises(Interrupted) as caught:
        fit(tmp_path, engine, checkpoint_every=1000)
    assert caught.value.code == 143
    found = checkpoint.load(checkpoint.find(tmp_path / "checkpoints", "last"))
    assert found.progress.step == len(engine.seen) and found.progress.validated is None
    second = Engine()
    second.load(found.state)
    rewind(tmp_path, found.progress)
    fit(tmp_path, second, found.progress)
    fit(tmp_path / "whole", whole := Engine())
    assert second.weight == whole.weight and log(tmp_path) == log(tmp_path / "whole")
