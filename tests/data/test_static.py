"""Batches of few shapes (``trainer.static_shapes``): what they are in each domain, and that nothing else changes."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support import devices, made
from toolkit.config import schema as config
from toolkit.data import batch as batches
from toolkit.runs import job
from toolkit.runs.folder import RunFolder

STATIC = ["trainer.static_shapes=true", "trainer.batch_examples=5"]
EPOCHS = 4


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A function that gives the data of a domain, with more words on the command line."""

    def parts(domain, *words):
        recipe, _ = devices.RECIPES[domain]
        option, make = made.FOLDERS[domain]
        folder = made.once(tmp_path_factory, f"static-{domain}", lambda folder: make(folder / "data"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TOOLKIT_CACHE", str(folder / "cache"))
            here = [f"dataset={option}", f"dataset.path={folder / 'data'}", f"run_dir={tmp_path_factory.mktemp('run')}"]
            small = ["tokenizer.vocab_size=16"] if domain == "translation" else []
            run = config.check([f"recipe={recipe}", *here, *small, *words])
            output = RunFolder(Path(run.run_dir))
            try:
                return run, job.prepare(run, output)
            finally:
                output.close()

    return parts


def shape(batch):
    return tuple((name, values.shape) for name, values in sorted(batch.items()))


@pytest.mark.parametrize("domain", made.FOLDERS)
def test_shapes_are_few_and_the_same_in_every_epoch(parts, domain):
    _, found = parts(domain, *STATIC)
    for data in found.data.values():
        seen = [[shape(data.collator(b, epoch)) for b in data.plan.epoch(epoch)] for epoch in range(EPOCHS)]
        for epoch in seen[1:]:
            assert sorted(epoch) == sorted(seen[0])
        assert len(set(seen[0])) <= len(np.unique(data.plan.padded)) + 1
        assert {shape(data.collator(b, 0)) for b in data.plan.in_order()} == set(seen[0])


@pytest.mark.parametrize("domain", ["speech", "translation"])
def test_only_padding_is_added(parts, domain):
    data = parts(domain, *STATIC)[1].data["train"]
    for positions in data.plan.epoch(1):
        wide, bare = data.collator(positions, 1), data.collator.collator(positions, 1)
        assert wide.keys() == bare.keys()
        for name, values in bare.items():
            more = [(0, a - b) for a, b in zip(wide[name].shape, values.shape, strict=True)]
            np.testing.assert_array_equal(wide[name], np.pad(values, more), err_msg=name)


@pytest.mark.parametrize("domain", made.FOLDERS)
def test_processes_share_the_shapes_of_the_whole_batch(parts, domain):
    run, found = parts(domain, *STATIC)
    data = found.data["train"]
    for positions in data.plan.epoch(0):
        whole = data.collator(positions, 0)
        own = [batches.Part(data.collator, rank, 2, run.task.amounts)(positions, 0) for rank in range(2)]
        assert sum(part["share"] for part in own) == pytest.approx(1)
        for name, values in whole.items():
            if name not in batches.PLACES:
                made_of = np.concatenate([part[name] for part in own if part["share"]])
                np.testing.assert_array_equal(made_of, values, err_msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.mktemp("static")


def predicted(run, split="test"):
    return [json.loads(line) for line in (run / "predictions" / f"{split}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("domain", ["speech", pytest.param("translation", marks=pytest.mark.long)])
def test_a_run_of_static_shapes_is_measured_alike_without_them_by_the_other_backend(backends, folder, domain, tmp_path):
    devices.train(backends, folder, domain, "torch", tmp_path / "run", "trainer.static_shapes=true")
    words = ["trainer.static_shapes=false", f"evaluate={tmp_path / 'run'}"]
    devices.train(backends, folder, domain, "tf", tmp_path / "again", *words)
    ours, theirs = predicted(tmp_path / "run"), predicted(tmp_path / "again")
    assert [row["hypothesis"] for row in ours] == [row["hypothesis"] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], rel=devices.TOLERANCE)
