"""Which settings may differ when a run is resumed or evaluated, and what is refused."""

import json
from types import SimpleNamespace

import pytest

from tests.support.made import pair_folder
from tests.support.resumed import files, last
from toolkit.config import schema as config
from toolkit.data import pipeline
from toolkit.data.columns.column import columns_of
from toolkit.data.split import encoded
from toolkit.errors import ConfigError, DataError
from toolkit.runs import checkpoint, resume

REFUSED = {  # override -> what the message says
    "seed=1": "seed: found 1, expected 0 as in the checkpoint; set seed=0, or accept=[seed]",
    "trainer.accumulate=2": "trainer.accumulate: found 2, expected 1 as in the checkpoint; set trainer.accumulate=1",
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
    named = [line.split()[0].rstrip(":") for line in caught.value.problems]
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
