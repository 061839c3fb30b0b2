"""What a resumed run takes over, and which failures it survives: whole runs, on an engine without a framework."""

import errno
import itertools
import json
import os
import shutil

import pytest

from tests.support.resumed import Task, files, last, log, same
from toolkit.cli import guard
from toolkit.config import schema as config
from toolkit.errors import DataError, RunError
from toolkit.runs import checkpoint, resume


@pytest.mark.parametrize("stop", range(1, 7))
def test_killed_at_any_step_and_started_again_it_ends_as_the_unbroken_run(train, whole, tmp_path, stop):
    def kill():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, at_step={stop: kill})
    train(tmp_path, "resume=auto")
    assert same(tmp_path, whole)


def test_tokenizer_and_features_come_from_the_checkpoint(train, earlier):
    kept = (earlier / "learned" / "tokenizer" / "sentencepiece.model").read_bytes()
    (earlier / "learned" / "tokenizer" / "sentencepiece.model").write_bytes(b"another")
    (earlier / "learned" / "tokenizer" / "stray").write_text("")
    train(earlier, "resume=auto", "trainer.max_steps=8")
    assert (earlier / "learned" / "tokenizer" / "sentencepiece.model").read_bytes() == kept
    assert not (earlier / "learned" / "tokenizer" / "stray").exists()
    assert last(earlier).about.learned == {"learned/tokenizer/sentencepiece.model": kept}


def test_a_checkpoint_says_of_its_run_what_is_needed_to_go_on(whole, arguments):
    about = last(whole).about
    assert config.resolve(about.config) == config.check([*arguments, f"run_dir={whole}"])
    assert about.backend == "torch" and {"python", "numpy", "safetensors"} <= set(about.versions)
    assert set(last(whole).progress.facts) == {"dataset", "seed", "accumulate", "plan"}
    assert last(whole).progress.log_bytes == {
        n: (whole / n).stat().st_size for n in ("metrics.jsonl", "examples.jsonl")
    }


def test_the_best_goes_with_a_run_into_another_folder(train, whole, tmp_path):
    best = checkpoint.find(whole / "checkpoints", "best")
    train(tmp_path, f"resume={whole}", "trainer.max_steps=8", "trainer.validate_every=100")
    assert last(tmp_path).progress.best_step == last(whole).progress.best_step
    assert files(tmp_path / "checkpoints" / best.name).keys() != set()
    assert checkpoint.find(tmp_path / "checkpoints", "best").name == best.name


def test_the_best_goes_with_it_although_the_newest_checkpoint_is_damaged(train, earlier, tmp_path):
    folder = earlier / "checkpoints"
    *_, before, newest = sorted(folder.glob("step-*"))
    best = f"step-{checkpoint.load(before).progress.best_step:08d}"
    assert (folder / best).is_dir()
    (newest / "model.safetensors").write_bytes(b"")
    # as if the newest had been better
    (folder / "index.json").write_text(json.dumps({"last": newest.name, "best": newest.name}))
    train(tmp_path / "other", f"resume={earlier}", "trainer.max_steps=8", "trainer.validate_every=100")
    assert checkpoint.find(tmp_path / "other" / "checkpoints", "best").name == best


def test_a_full_disk_while_it_takes_over_leaves_nothing(train, whole, tmp_path, monkeypatch):
    real = os.fsync

    def full(handle):
        if "other/checkpoints" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=rf"the checkpoints of {whole} could not be copied .*repeat the command"):
        train(tmp_path / "other", f"resume={whole}", "trainer.max_steps=8")
    assert not list((tmp_path / "other" / "checkpoints").iterdir())


def test_the_folder_of_checkpoints_may_be_a_link(train, whole, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "thesis.txt").write_text("not ours")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "checkpoints").symlink_to(tmp_path / "disk", target_is_directory=True)
    train(tmp_path / "other", f"resume={whole}", "trainer.max_steps=8")
    assert list((tmp_path / "disk").glob("step-*")) and (tmp_path / "other" / "checkpoints").is_symlink()
    assert (tmp_path / "disk" / "thesis.txt").exists()


def test_killed_in_another_folder_before_its_first_checkpoint_it_goes_on_from_the_last_one(train, whole, tmp_path):
    def kill():
        raise KeyboardInterrupt

    more = ("trainer.max_steps=9", "trainer.checkpoint_every=100", "trainer.validate_every=100")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", f"resume={whole}", *more, at_step={2: kill})
    train(tmp_path / "killed", "resume=auto", *more)
    train(tmp_path / "unbroken", f"resume={whole}", *more)
    assert same(tmp_path / "killed", tmp_path / "unbroken")
    assert [row["step"] for row in log(tmp_path / "killed") if row["split"] == "train"] == [8, 9]


@pytest.mark.parametrize("operation, every", [("replace", 1), ("fsync", 4)])
def test_killed_while_it_takes_over_it_loses_nothing(train, whole, tmp_path, monkeypatch, operation, every):
    more = ("trainer.max_steps=9", "trainer.validate_every=100")
    train(tmp_path / "unbroken", f"resume={whole}", *more)
    real, take_over, kills = getattr(os, operation), checkpoint.take_over, 0

    def killed(*arguments):
        calls = itertools.count()

        def call(*arguments):
            if next(calls) == kills:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, operation, call)
            take_over(*arguments)

    while True:
        folder = tmp_path / str(kills)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(checkpoint, "take_over", killed)
                train(folder, f"resume={whole}", *more)
            break
        except KeyboardInterrupt:
            begun = checkpoint.find(folder / "checkpoints", "last")
        train(folder, "resume=auto" if begun else f"resume={whole}", *more)
        assert same(folder, tmp_path / "unbroken")
        assert checkpoint.find(folder / "checkpoints", "best").name == f"step-{last(whole).progress.best_step:08d}"
        kills += every
    assert kills > 2


def test_what_changed_is_told_in_one_line(train, earlier):
    train(earlier, "resume=auto", "trainer.max_steps=8", "optimizer.lr=0.5", "backend=tf", "model.dropout=0.3")
    told = [line for line in (earlier / "run.log").read_text().splitlines() if line.startswith("changed since")]
    assert len(told) == 1
    for change in ("optimizer.lr ", " -> 0.5", "trainer.max_steps 7 -> 8", "backend torch -> tf", "model.dropout "):
        assert change in told[0]


def test_of_another_component_its_name_is_told():
    before = {"tokenizer": {"_target_": "toolkit.a.Old", "size": 3}, "seed": 0, "resume": "auto"}
    now = {"tokenizer": {"_target_": "toolkit.b.New"}, "seed": 0, "resume": None}
    assert resume.changes(before, now) == {"tokenizer": ("Old", "New")}


def test_a_run_that_has_ended_says_that_nothing_is_left_to_train(train, whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    train(run, "resume=auto")
    assert "nothing is left to train: the checkpoint is at step 7; set a larger" in (run / "run.log").read_text()
    assert same(run, whole) and "nothing is left" not in (whole / "run.log").read_text()


# --- what is survived ------------------------------------------------------------------------------------------------


def test_of_damaged_checkpoints_each_is_named_and_the_one_before_is_taken(train, earlier, whole):
    newest = checkpoint.find(earlier / "checkpoints", "last")
    (newest / "model.safetensors").write_bytes(b"\x80\x04.")
    train(earlier, "resume=auto")
    said = (earlier / "run.log").read_text()
    assert f"{newest / 'model.safetensors'}: damaged" in said and "; using step-" in said
    assert same(earlier, whole)
    for path in checkpoint.candidates(earlier / "checkpoints"):
        (path / "state.json").write_text("{")
    with pytest.raises(DataError) as caught:
        train(earlier, "resume=auto")
    names = {path.name for path in checkpoint.candidates(earlier / "checkpoints")}
    assert len(names) == len(caught.value.problems) >= 2 and all(name in str(caught.value) for name in names)


def test_a_full_disk_at_any_write_ends_in_one_line_and_costs_nothing(train, whole, tmp_path, monkeypatch, capsys):
    """Whatever the first thing is that fails: the run says so, and goes on to the same end once there is room."""
    for failing in range(1, 1000, 7):
        folder = tmp_path / str(failing)
        with monkeypatch.context() as patch:
            left = full_after(failing, patch)
            code = guard.guarded(lambda: train(folder) and 0)  # noqa: B023
        told = capsys.readouterr().err.strip()
        if code == 0:  # at most what nobody needs was not written
            assert left[0] >= -1 and same(folder, whole) and (folder / "results.json").exists()
            break
        assert code == 1 and "No space left on device" in told and len(told.splitlines()) == 1, (failing, told)
        assert "bytes are free" in told and "Traceback" not in told
        train(folder, "resume=auto")
        assert same(folder, whole), failing
    assert failing > 50


def full_after(calls, patch):
    """Make everything that writes fail from the ``calls``-th time on; a list of how many were left."""
    left = [calls]

    def failing(module, name):
        original = getattr(module, name)

        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args, **kwargs)

        patch.setattr(module, name, call)

    for module, name in ((os, "fsync"), (os, "replace"), (os, "mkdir")):
        failing(module, name)
    return left


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, capsys):
    def refuse():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "results.json"))

    assert guard.guarded(refuse) == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'results.json'}: Permission denied; ")


def test_an_error_of_the_system_that_is_no_disk_keeps_its_traceback(capsys):
    def fail():
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    assert guard.guarded(fail) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_damaged_best_is_named_at_the_end_and_the_newest_is_measured(train, tmp_path):
    def damage():
        best = checkpoint.find(tmp_path / "checkpoints", "best")
        assert best is not None
        (best / "optimizer.safetensors").write_bytes(b"")
        damaged.append(best)

    damaged: list = []
    train(tmp_path, "trainer.max_steps=6", at_step={6: damage})
    results = json.loads((tmp_path / "results.json").read_text())
    assert last(tmp_path).progress.best_step < 6
    assert f"{damaged[0] / 'optimizer.safetensors'}: damaged" in (tmp_path / "run.log").read_text()
    assert results["step"] == 6


def test_killed_between_the_last_checkpoint_and_the_index_the_best_is_measured(train, whole, tmp_path, monkeypatch):
    """The index still names an earlier best then, or none."""
    point, last_step = checkpoint.point, last(whole).progress.step

    def killed(folder, name, progress):
        if progress.validated == last_step:
            raise KeyboardInterrupt
        point(folder, name, progress)

    values = iter([0.9, 0.8, 0.1, 0.1])
    monkeypatch.setattr(Task, "measure", lambda self, rows, target: {"cer": next(values, 0.5)})
    train(tmp_path / "whole", "trainer.validate_every=1", "trainer.max_steps=7")
    values = iter([0.9, 0.8, 0.1, 0.1])
    monkeypatch.setattr(checkpoint, "point", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", "trainer.validate_every=1", "trainer.max_steps=7")
    monkeypatch.setattr(checkpoint, "point", point)
    train(tmp_path / "run", "resume=auto", "trainer.validate_every=1", "trainer.max_steps=7")
    steps = [json.loads((tmp_path / f / "results.json").read_text())["step"] for f in ("run", "whole")]
    assert steps == [last(tmp_path / "whole").progress.best_step] * 2
