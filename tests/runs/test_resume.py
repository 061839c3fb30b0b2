"""What a run that goes on takes over, refuses and survives: whole runs, on an engine without a framework."""

import errno
import itertools
import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import tiny
from tests.support import training as stand_ins
from tests.support.made import pair_folder
from toolkit.cli import guard
from toolkit.config import schema as config
from toolkit.data import pipeline
from toolkit.data.columns.column import columns_of
from toolkit.data.split import encoded
from toolkit.errors import ConfigError, DataError, RunError
from toolkit.runs import checkpoint, job, resume
from toolkit.training.progress import State

SHORT = [
    "tokenizer.vocab_size=13",
    "trainer.max_steps=7",
    "trainer.checkpoint_every=2",
    "trainer.keep=2",
    "trainer.batch_examples=5",
]


class Engine(stand_ins.Engine):
    """Its weight fills the arrays of the run's model."""

    def __init__(self, run, learned, **plan):
        super().__init__(**plan)
        self.parameters = run.model.parameters(learned.inputs, learned.outputs)
        self.moments = run.optimizer.moments

    def state(self):
        model = {name: np.full(p.shape, self.weight[0]) for name, p in self.parameters.items()}
        trained = {name: p.shape for name, p in self.parameters.items() if p.trainable}
        moments = {f"{m}.{name}": np.zeros(shape) for m in self.moments for name, shape in trained.items()}
        return State(model, moments | {"step": np.array([len(self.seen)]), "exp_avg_sq_scale": np.ones(1)})

    def load_weights(self, state):
        self.weight = np.array([next(iter(state.model.values())).flat[0]])

    load = load_weights


class Task(stand_ins.Task):
    """A task of two texts, with something to leave in the run folder."""

    input = target = "text"

    def unfit(self, run, split, learned):
        return ()

    def detail(self, row):
        return {}

    def files(self, rows):
        return {"note.txt": b"noted"}

    def table(self, rows):
        return ""

    def signatures(self, target):
        return {}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """The command line of a small translation."""
    data = pair_folder(tmp_path_factory.mktemp("pairs") / "data")
    fixed = ["recipe=translation", "dataset=parallel_text", f"dataset.path={data}"]
    return [*fixed, *tiny.components(*fixed), *tiny.SHORT, *SHORT]


@pytest.fixture
def train(arguments, monkeypatch):
    """A function that does the run of a command line, and returns the engine that did it."""

    def train(folder, *overrides, **plan):
        def build(run, learned, link):
            engines.append(Engine(run, learned, **plan))
            return engines[-1]

        engines = []
        monkeypatch.setattr(job, "build_engine", build)
        run = config.check([*arguments, f"run_dir={folder}", *overrides])
        job.execute(replace(run, task=Task()), config.plain(run), list(overrides))
        return engines[0]

    return train


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """The folder of a run that nothing disturbed; not to be written to."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("whole") / "run"
        train.__wrapped__(arguments, patch)(folder)
    return folder


@pytest.fixture
def earlier(whole, tmp_path):
    """A copy of it that may be changed."""
    return shutil.copytree(whole, tmp_path / "run")


def log(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "examples_per_second")} for row in rows]


def last(folder):
    return checkpoint.load(checkpoint.find(folder / "checkpoints", "last"))


def same(folder, other):
    """Whether two runs left the same weights, the same position and the same log."""
    a, b = last(folder), last(other)
    equal = all(np.array_equal(a.state.model[name], b.state.model[name]) for name in a.state.model)
    return equal and a.progress == b.progress and log(folder) == log(other)


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in ("run.log", ".lock")}


# --- what is taken over ----------------------------------------------------------------------------------------------


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


# --- what is refused -------------------------------------------------------------------------------------------------

REFUSED = {  # override -> what the message says
    "seed=1": "seed 0, now 1; accept=[seed]",
    "trainer.accumulate=2": "trainer.accumulate 1, now 2; accept=[accumulate]",
    "tokenizer.algorithm=unigram": "tokenizer.algorithm bpe -> unigram; accept=[tokenizer]",
    "tokenizer=wordpiece": "tokenizer SentencePiece -> WordPiece; accept=[tokenizer]",
    "model.dim=8": "model.dim 16 -> 8: the checkpoint does not fit this model: ",
    "optimizer=sgd": "optimizer AdamW -> SGD: the checkpoint does not fit this optimizer: ",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_the_config_tells_is_refused_before_the_data_is_read(train, earlier, monkeypatch, override):
    monkeypatch.setattr("toolkit.data.pipeline.prepare", None)
    before = files(earlier)
    with pytest.raises(ConfigError) as caught:
        train(earlier, "resume=auto", override)
    assert len(caught.value.problems) == 1 and REFUSED[override] in caught.value.problems[0]
    assert str(checkpoint.find(earlier / "checkpoints", "last")) in caught.value.headline
    assert files(earlier) == before


@pytest.mark.parametrize("field", ["resume", "evaluate"])
def test_other_features_are_refused_unless_they_are_accepted(whole, field):
    before, now = ({"features": {"_target_": "toolkit.features.LogMel", "mels": mels}} for mels in (80, 40))
    found, changed = last(whole), resume.changes(before, now)
    run = SimpleNamespace(resume=None, evaluate=None, accept=(), seed=0, trainer=SimpleNamespace(accumulate=1))
    setattr(run, field, "a folder")
    with pytest.raises(ConfigError, match=r"features.mels 80 -> 40; accept=\[features\]") as caught:
        resume.check(run, changed, found)
    assert len(caught.value.problems) == 1
    run.accept = ("dataset",)
    with pytest.raises(ConfigError, match=r"features.mels 80 -> 40"):
        resume.check(run, changed, found)
    run.accept = ("features",)
    resume.check(run, changed, found)
    assert resume.learned_anew(run, changed) == ({"features"} if field == "resume" else set())


def test_all_that_is_refused_is_listed_at_once(train, earlier):
    with pytest.raises(ConfigError) as caught:
        train(earlier, "resume=auto", "seed=1", "tokenizer.vocab_size=14", "trainer.accumulate=2", "model.dropout=0")
    named = [line.split()[0] for line in caught.value.problems]
    assert named == ["tokenizer.vocab_size", "seed", "trainer.accumulate"]


def test_another_tokenizer_is_learned_anew_where_it_is_accepted(train, earlier):
    before = last(earlier).about.learned
    other = ("resume=auto", "tokenizer.algorithm=unigram")
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size 13 -> 12: the checkpoint does not fit this model"):
        train(earlier, *other, "tokenizer.vocab_size=12", "accept=[tokenizer]")
    train(earlier, *other, "accept=[tokenizer]", "trainer.max_steps=8")
    learned = last(earlier).about.learned
    assert learned.keys() == before.keys() and learned != before
    train(earlier, *other, "trainer.max_steps=9")  # by now it is the run's own
    assert last(earlier).about.learned == learned


def test_edited_data_is_refused_unless_it_is_accepted(train, earlier, tmp_path):
    other = pair_folder(tmp_path / "other", train=22)
    more = ("resume=auto", f"dataset.path={other}", "trainer.max_steps=8")
    with pytest.raises(DataError, match=r"accept=\[dataset\]") as caught:
        train(earlier, *more)
    assert last(earlier).progress.facts["dataset"] in str(caught.value)
    train(earlier, *more, "accept=[dataset]")
    assert last(earlier).progress.step == 8
    train(earlier, *more[:2], "trainer.max_steps=9")  # by now it is the run's own


def test_a_limit_that_drops_examples_makes_other_data(train, earlier):
    longest = max(len(ids) for ids in token_ids(earlier))
    more = ("resume=auto", f"dataset.max_tokens={longest - 1}", "trainer.max_steps=8")
    with pytest.raises(DataError, match=f"too long: .*{longest} tokens, expected at most {longest - 1}"):
        train(earlier, *more)
    with pytest.raises(DataError, match=r"accept=\[dataset\]"):
        train(earlier, *more, "dataset.on_bad=drop")
    train(earlier, *more, "dataset.on_bad=drop", "accept=[dataset]")
    assert last(earlier).progress.step == 8


def token_ids(folder):
    """Token ids of every text of the data that a run was trained on."""
    run = config.resolve(last(folder).about.config)
    columns = columns_of(run)
    known = pipeline.load(columns, folder / "learned")
    splits = [encoded(columns, split, known) for split in pipeline.prepare(run.dataset, columns).splits.values()]
    tokens = [values.tokens for split in splits for values in (split.input, split.target)]
    return [side[i] for side in tokens for i in range(len(side.ends))]


def test_other_batches_are_refused_in_the_middle_of_an_epoch(train, earlier):
    assert last(earlier).progress.batch
    more = ("resume=auto", "trainer.batch_examples=4", "trainer.max_steps=8")
    with pytest.raises(DataError, match=r"plan: .*trainer.batch_examples 5 -> 4.*accept=\[plan\]"):
        train(earlier, *more)
    train(earlier, *more, "accept=[plan]")
    assert last(earlier).progress.step == 8


def test_a_seed_that_is_accepted_brings_its_batches_with_it(train, earlier):
    train(earlier, "resume=auto", "seed=1", "trainer.max_steps=8", "accept=[seed]")
    assert last(earlier).progress.facts["seed"] == 1


@pytest.mark.parametrize(
    "override, accept, says",
    [
        ("tokenizer.vocab_size=14", "tokenizer", "remove the override"),
        ("model.dim=8", "features", "does not fit this model"),
    ],
)
def test_a_run_is_measured_with_what_it_was_trained_with(train, whole, tmp_path, override, accept, says):
    with pytest.raises(ConfigError, match=says):
        train(tmp_path / "a", f"evaluate={whole}", override, f"accept=[{accept}]")
    train(tmp_path / "b", f"evaluate={whole}", "dataset.max_tokens=99")
    assert json.loads((tmp_path / "b" / "results.json").read_text())["metrics"]


def test_what_was_accepted_once_is_not_accepted_for_ever(earlier):
    settings = (earlier / "config.yaml").read_text().replace("accept: []", "accept: [seed]")
    (earlier / "config.yaml").write_text(settings)
    assert config.check([f"resume={earlier}"]).accept == ()


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
