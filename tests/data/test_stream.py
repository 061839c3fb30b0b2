"""Training splits that are read during training: pools, processes, bad records, and resumed runs."""

import io
import json
import re
import shutil
import tarfile
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import made, tiny
from tests.support.devices import joined
from toolkit.config import schema as config
from toolkit.data import pipeline
from toolkit.data.batch import PLACES, Part
from toolkit.data.columns.column import columns_of
from toolkit.data.lanes import Reader
from toolkit.data.stream import Stream
from toolkit.errors import ConfigError, DataError
from toolkit.training.progress import Progress

BACKENDS = ("torch", "tf")
DOMAINS = {
    "speech": ("asr", "audio_shards", ["model=bilstm_ctc", "task.decoder=greedy"]),
    "translation": ("translation", "pair_shards", ["dataset.source=en", "dataset.target=de", "task.decoder=greedy"]),
    "images": ("image_classification", "image_shards", ["features.crop=pad"]),
}
SIZES = (7, 5, 9, 4)  # records of the training shards


def arguments(domain, folder, *overrides):
    recipe, dataset, own = DOMAINS[domain]
    fixed = [f"recipe={recipe}", f"dataset={dataset}", f"dataset.path={folder}", *own]
    stream = ["dataset.streaming=true", "dataset.pool=8", "dataset.lanes=2"]
    short = [*tiny.SHORT, "trainer.max_steps=12", "trainer.batch_examples=3", "trainer.precision=64"]
    kept = ["trainer.checkpoint_every=1", "trainer.keep=100", "trainer.validate_every=2"]
    return [*fixed, *tiny.components(*fixed), *short, *stream, *kept, *overrides]


def stream(folder, domain, *overrides):
    """A stream and its run, what it learns from its own sample."""
    run = config.check(arguments(domain, folder, *overrides))
    columns, learned = columns_of(run), folder / "learned"
    reader = Reader(run, columns)
    if not learned.exists():
        pipeline.learn(columns, reader.sample(), learned)
    return Stream(reader, pipeline.load(columns, learned)), run


def through(found, run, engine=None, at=None, steps=30):
    """Goes through a stream as the loop does: where each batch begins, its ids and what it holds."""
    engine, at = engine or SimpleNamespace(rank=0, ranks=1), at or Progress()
    while at.step < steps:
        found.turn(engine, at)
        part = found.source(engine, at)
        for positions in part.batches(at.epoch)[at.batch :]:
            collator = part.collator
            if engine.ranks > 1:
                collator = Part(collator, engine.rank, engine.ranks, run.task.amounts, part.held)
            stands = (at.epoch, at.batch, dict(at.stream))
            yield stands, [part.split.ids[i] for i in positions], collator(positions, at.epoch)
            at.step, at.batch = at.step + 1, at.batch + 1


def test_a_sample_of_bad_examples_alone_is_refused(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "images", "tar", (3,))
    with tarfile.open(next(folder.glob("train*"))) as file:
        members = [(member, file.extractfile(member).read()) for member in file.getmembers()]
    with tarfile.open(next(folder.glob("train*")), "w") as file:
        for member, content in members:
            content = b"no image" if member.name.endswith(".png") else content
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    run = config.check(arguments("images", folder, "dataset.on_bad=drop"))
    with pytest.raises(DataError, match="found no usable example among the first 3"):
        Reader(run, columns_of(run)).sample()


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_example_is_in_every_epoch_once(domain, tmp_path):
    found, run = stream(made.shard_folder(tmp_path / "data", domain, "tar", SIZES), domain)
    of, numbers = [[], [], []], [[], [], []]
    for (epoch, _, _), ids, batch in through(found, run, steps=60):
        if epoch < len(of):
            of[epoch] += ids
            numbers[epoch] += batch["example"].tolist()
    assert len(set(numbers[0])) == len(numbers[0]), "augmentation is drawn by them"
    assert len(set(of[0])) == len(of[0]) == sum(SIZES)
    assert sorted(of[0]) == sorted(of[1]) == sorted(of[2]) and of[0] != of[1] != of[2]


def test_every_pool_is_shuffled_otherwise(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "images", "tar", (9,))
    orders = [[], []]
    for (epoch, _, _), ids, _ in through(*stream(folder, "images", "dataset.pool=9"), steps=6):
        orders[epoch] += ids
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]


def same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], name)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_stream_goes_on_anywhere(domain, tmp_path):
    folder = made.shard_folder(tmp_path / "data", domain, "parquet", SIZES)
    whole = list(through(*stream(folder, domain)))
    for begin in (1, 4, 7, 11, 20):
        epoch, batch, place = json.loads(json.dumps(whole[begin][0]))
        at = Progress(step=begin, epoch=epoch, batch=batch, stream=place)
        rest = list(through(*stream(folder, domain), at=at))
        assert [ids for _, ids, _ in rest] == [ids for _, ids, _ in whole[begin:]]
        for (*_, ours), (*_, theirs) in zip(rest, whole[begin:], strict=True):
            same(ours, theirs)


@pytest.mark.parametrize(
    "sizes",
    [pytest.param(SIZES, marks=pytest.mark.long), (12, 1), pytest.param((1, 1, 1, 9), marks=pytest.mark.long)],
)
@pytest.mark.parametrize("domain", DOMAINS)
def test_processes_read_their_own_shards_and_share_the_batches_of_one(domain, sizes, tmp_path):
    """With lanes of such different lengths that one process has none of the last batches."""
    folder = made.shard_folder(tmp_path / "data", domain, "tfrecord", sizes)
    whole = list(through(*stream(folder, domain)))
    parts = [went for went, _ in processes(folder, domain)]
    shares = []
    for (_, ids, batch), *both in zip(whole, parts[0], parts[1], strict=False):
        assert [found[1] for found in both] == [ids, ids]
        counted = [part for *_, part in both if part["share"]]
        assert sum(part["share"] for part in counted) == pytest.approx(1)
        whole_batch = {name: values for name, values in batch.items() if name not in PLACES}
        same(whole_batch, {name: np.concatenate([part[name] for part in counted]) for name in whole_batch})
        shares.append(len(counted))
    assert 2 in shares and (sizes == SIZES or 1 in shares)


def processes(folder, domain, *overrides, steps=12):
    """What each of two processes goes through, and the streams; an error takes the place of the steps."""
    engines, found = joined(2), {}
    # not in the threads: Hydra composes by a state that all of them share
    streams = [stream(folder, domain, "trainer.devices=2", *overrides) for _ in range(2)]

    def process(rank):
        own, run = streams[rank]
        try:
            went = list(through(own, run, engines[rank], steps=steps))
        except DataError as error:
            went = error
        found[rank] = went, own

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(2)]


def test_a_bad_record_of_one_process_is_all_processes(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "speech", "tar", SIZES)
    stream(folder, "speech")
    spoil(folder)
    (one, _), (other, _) = processes(folder, "speech")
    assert isinstance(one, DataError) and str(one) == str(other)
    alone, run = stream(folder, "speech", "dataset.on_bad=drop")
    whole = [ids for _, ids, _ in through(alone, run, steps=12)]
    for went, own in processes(folder, "speech", "dataset.on_bad=drop"):
        assert [ids for _, ids, _ in went] == whole
        assert own.dropped == alone.dropped and own.lines == alone.lines


def test_what_reads_ahead_ends_with_the_run(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "images", "tar", (3, 3))
    found, run = stream(folder, "images")
    next(through(found, run))
    found.close()
    assert found._ahead[1].done() and not found.reader.take(1, 0, [0, 0], 1)[0]


def test_a_place_of_other_lanes_begins_the_epoch_again(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "images", "tar", SIZES)
    whole = list(through(*stream(folder, "images")))
    epoch, batch, place = next(stands for stands, *_ in whole if stands[2] and stands[1])
    found, run = stream(folder, "images", "dataset.lanes=4")
    rest = list(through(found, run, at=Progress(step=9, epoch=epoch, batch=batch, stream=place), steps=20))
    assert rest[0][0] == (epoch, 0, {}) and "the epoch starts again" in " ".join(found.notes())


def test_a_process_reads_half_of_the_shards(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "images", "tar", (3,) * 8)
    found, _ = stream(folder, "images", "trainer.devices=2")
    opened = [set(), set()]
    rows, rank = found.reader.shards.rows, 0

    def noted(number, start=0):
        opened[rank].add(number)
        return rows(number, start)

    object.__setattr__(found.reader.shards, "rows", noted)
    for rank in range(2):
        places = [[0, 0]] * 2
        while (got := found._read(SimpleNamespace(rank=rank, ranks=2), 0, places)).rows[0][0]:
            places[rank] = got.rows[0][1]
    assert len(opened[0]) == len(opened[1]) == 4 and not opened[0] & opened[1]


def spoil(folder):
    path = next(folder.glob("train-00001*"))
    rows = made.records("speech", 5, 3)
    rows[2]["wav"], rows[3]["txt"] = b"RIFF", "ab?"
    made.write_tar(path, rows)


def test_a_bad_record_is_named_or_dropped_and_counted(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "speech", "tar", SIZES)
    stream(folder, "speech")  # learns its letters
    spoil(folder)
    with pytest.raises(DataError) as error:
        list(through(*stream(folder, "speech")))
    assert "train-00001-of-00004.tar, record" in str(error.value) and "dataset.on_bad=drop" in str(error.value)
    found, run = stream(folder, "speech", "dataset.on_bad=drop")
    ids = [name for (epoch, _, _), names, _ in through(found, run) for name in names if epoch == 0]
    assert len(ids) == sum(SIZES) - 2
    assert found.dropped["unknown character"] >= 1
    assert re.search("dropped.*unknown character.*train-00001-of-00004.tar, record 3", " ".join(found.notes()))
    few, run = stream(folder, "speech", "dataset.max_dropped=0.5")
    assert [name for (epoch, _, _), names, _ in through(few, run) for name in names if epoch == 0] == ids
    assert few.dropped == found.dropped
    for went, part in processes(folder, "speech", "dataset.max_dropped=0.5"):
        assert part.dropped.keys() == found.dropped.keys()
        assert [name for (epoch, _, _), names, _ in went for name in names if epoch == 0] == ids


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["trainer.max_steps=null"],
            "trainer.max_steps: null is not supported with dataset.streaming",
        ),
        (
            ["trainer.accumulate=9"],
            "trainer.accumulate: found 9, expected at most dataset.pool",
        ),
        (["dataset.split=train"], "dataset.split: train is not supported with dataset.streaming=true"),
        (["trainer.workers=2"], "trainer.workers: 2 is not supported with dataset.streaming=true"),
        (["trainer=tpu", "backend=tf"], "trainer.strategy: tpu is not supported with dataset.streaming=true"),
        (["trainer.static_shapes=true"], "trainer.static_shapes: true is not supported with dataset.streaming=true"),
        (["trainer=stock"], "trainer.loop: stock is not supported with dataset.streaming=true"),
        (["dataset=digits"], "dataset.streaming: true is not supported by Digits, which has no shards"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(words, said):
    given = ["recipe=image_classification", "dataset=image_shards", "trainer.max_steps=3", "dataset.streaming=true"]
    path = ["dataset.path=there"] if "dataset=digits" not in words else []
    with pytest.raises(ConfigError) as error:
        config.check([*given, *path, *words])
    assert said in str(error.value)


@pytest.mark.parametrize("sizes, devices", [((3,), 2), ((3, 3, 3, 3), 3)])
def test_processes_that_cannot_share_the_lanes_are_refused(sizes, devices, tmp_path):
    folder = made.shard_folder(tmp_path / "data", "translation", "tar", sizes)
    with pytest.raises(DataError, match=f"cannot be divided among {devices} processes"):
        stream(folder, "translation", f"trainer.devices={devices}")


@pytest.fixture(scope="module")
def train(backends):
    """A function that does a run, and returns what it printed."""

    def train(domain, backend, folder, run, *overrides, code=0):
        words = arguments(domain, folder, f"backend={backend}", f"run_dir={run}", *overrides)
        return backends[backend].run("tests.workers.forked", *words, code=code)

    return train


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """A function that gives the folder of the data and the run of a domain and backend, made once."""
    base = tmp_path_factory.mktemp("stream")

    def trained(domain, backend):
        data, run = base / domain, base / f"{domain}-{backend}"
        if not data.exists():
            kind = {"speech": "tfrecord", "translation": "parquet", "images": "tar"}[domain]
            made.shard_folder(data, domain, kind, SIZES)
        if not run.exists():
            train(domain, backend, data, run)
        return data, run

    return trained


def steps(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return np.array([(row["loss"], row["grad_norm"]) for row in rows if row["split"] == "train"])


def seen(run):
    return [json.loads(line)["ids"] for line in (run / "examples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "domain", [*(pytest.param(name, marks=pytest.mark.long) for name in ("speech", "translation")), "images"]
)
def test_both_backends_train_alike_on_a_stream(trained, domain):
    (_, one), (_, other) = (trained(domain, backend) for backend in BACKENDS)
    assert len(seen(one)) == 12 and seen(one) == seen(other)
    np.testing.assert_allclose(steps(one), steps(other), rtol=1e-8)
    for run in (one, other):
        results = json.loads((run / "results.json").read_text())
        assert results["step"] > 0 and results["examples_per_second"] > 0 and "train" not in results["examples"]


@pytest.mark.parametrize(
    "first, then",
    [
        pytest.param("torch", "torch", marks=pytest.mark.long),
        ("torch", "tf"),
        pytest.param("tf", "tf", marks=pytest.mark.long),
    ],
)
def test_a_killed_run_goes_on_in_the_middle_of_a_pool(train, trained, first, then, tmp_path):
    data, whole = trained("speech", first)
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for checkpoint in (run / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > 5:
            shutil.rmtree(checkpoint)
    done = train("speech", then, data, run, "resume=auto")
    assert "at step 5" in done.stdout
    assert seen(run) == seen(whole)
    np.testing.assert_allclose(steps(run), steps(whole), rtol=0 if first == then else 1e-8)


def test_two_processes_have_the_trajectory_of_one_on_a_stream(train, trained, tmp_path):
    data, whole = trained("speech", "torch")
    train("speech", "torch", data, tmp_path / "run", "trainer.devices=2")
    assert seen(tmp_path / "run") == seen(whole)
    np.testing.assert_allclose(steps(tmp_path / "run"), steps(whole), rtol=1e-8)


def test_a_bad_record_on_the_way_leaves_a_checkpoint_before_it(train, tmp_path):
    folder = made.shard_folder(tmp_path / "data", "images", "parquet", (8, 8, 8))
    for path in folder.glob("train-0000[12]*"):  # the first shard alone is left whole: it may come last
        rows = made.records("images", 8)
        rows[-1]["png"] = b"no picture"
        made.write_parquet(path, rows)
    words = ["dataset.lanes=1", "dataset.pool=4", "dataset.sample=4", "trainer.checkpoint_every=1000", "seed=1"]
    done = train("images", "torch", folder, tmp_path / "run", *words, code=2)
    assert re.search(r"train-0000[12]-of-00003.parquet, record 7 .a.png.: mislabelled", done.stderr), done.stderr
    assert "Resume with resume=auto dataset.on_bad=drop" in done.stderr
    (left,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert int(left.name.removeprefix("step-")) >= 1
