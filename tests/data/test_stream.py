"""Training splits that are read while they are trained on: all kinds of shards, pools, processes, going on."""

import functools
import gzip
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toolkit.data.corpus import SPLITS

from toolkit.config import schema as config
from toolkit.data.batch import PLACES, Part
from toolkit.data.plan import columns
from toolkit.data.stream import Reader, Stream
from toolkit.datasets import hub, imagenet, parallel_hub, shards
from toolkit.errors import ConfigError, DataError
from toolkit.runs.checkpoint import Progress

from . import made, test_datasets, test_devices, test_image_datasets, test_translation_datasets, tiny

BACKENDS = ("torch", "tf")
DOMAINS = {
    "speech": ("asr", "audio_shards", ["model=bilstm_ctc", "task.decoder=greedy"]),
    "translation": ("translation", "pair_shards", ["dataset.source=en", "dataset.target=de", "task.decoder=greedy"]),
    "images": ("image_classification", "image_shards", ["features.crop=pad"]),
}
SIZES = (7, 5, 9, 4)  # records of the training shards
WANTED = {
    "speech": ({"recording": shards.AUDIO, "transcript": shards.TEXT}, "recording"),
    "translation": ({"source": ("en",), "target": ("de",)}, None),
    "images": ({"picture": shards.IMAGE, "class": shards.LABEL}, "picture"),
}


@pytest.mark.parametrize("kind", made.WRITERS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_records_of_every_kind_of_shard_are_the_same(domain, kind, tmp_path):
    folder = made.shard_folder(tmp_path / "data", domain, kind, SIZES)
    found = shards.in_folder(str(folder), *WANTED[domain], "train")
    assert len(found.files) == len(SIZES)
    rows = [(list(row.fields.values()), row.read()) for i in range(len(SIZES)) for row in found.rows(i)]
    expected = []
    for record in made.records(domain, sum(SIZES) + 12)[: sum(SIZES)]:
        content = next((value for value in record.values() if isinstance(value, bytes)), b"")
        expected.append(([value for value in record.values() if isinstance(value, str)], content))
    assert rows == expected
    for start in (0, 1, 4, 5, 6, 7, 8):
        tail = [row.read() if domain != "translation" else row.fields for row in found.rows(0, start)]
        whole = [row.read() if domain != "translation" else row.fields for row in found.rows(0)]
        assert tail == whole[start:]


WRITTEN_BY_TENSORFLOW = """
import sys, tensorflow as tf
feature = tf.train.Feature
with tf.io.TFRecordWriter(sys.argv[1]) as file:
    for i in range(3):
        values = {"text": feature(bytes_list=tf.train.BytesList(value=["zażółć".encode()])),
                  "n": feature(int64_list=tf.train.Int64List(value=[i - 1])),
                  "many": feature(float_list=tf.train.FloatList(value=[0.5, 2.0]))}
        file.write(tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString())
"""


def test_records_are_those_that_tensorflow_writes(tmp_path):
    path = tmp_path / "train-0.tfrecord"
    subprocess.run([sys.executable, "-c", WRITTEN_BY_TENSORFLOW, str(path)], check=True, capture_output=True)
    with open(path, "rb") as file:
        found = list(shards._tfrecord(file, 0, {}))
    assert [row["n"] for row in found] == [-1, 0, 1]
    assert {row["text"].decode() for row in found} == {"zażółć"} and found[0]["many"] == [0.5, 2.0]


def damage_end(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def damage_field(path):
    made.WRITERS[path.suffix[1:]](path, [{"sound": b"1", "words": "2"}])


@pytest.mark.parametrize("kind", made.WRITERS)
def test_a_bad_shard_is_named(kind, tmp_path):
    folder = made.shard_folder(tmp_path / "data", "speech", kind, (3,))
    damage_end(next(folder.glob("train-*")))
    found = shards.in_folder(str(folder), *WANTED["speech"], "train")
    with pytest.raises(DataError, match=rf"train-00000-of-00001.{kind}, record \d+: cannot be read \(.*copy the file"):
        list(found.rows(0))


@pytest.mark.parametrize("kind", made.WRITERS)
def test_a_field_that_is_not_there_is_named(kind, tmp_path):
    """Where a file has columns, by one line for all of its records."""
    folder = made.shard_folder(tmp_path / "data", "speech", kind, (3,))
    damage_field(next(folder.glob("train-*")))
    found = shards.in_folder(str(folder), *WANTED["speech"], "train")
    said = "expected one of audio, wav, flac"
    if kind == "parquet":
        with pytest.raises(DataError, match=f"train-00000-of-00001.parquet: found sound, words, {said}"):
            list(found.rows(0))
    else:
        (problem,) = found.rows(0)
        assert problem.kind == "missing field" and said in problem.message


def test_records_without_a_usable_value_are_problems(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "images", "parquet", (3,))
    picture = made.records("images", 1)[0]["png"]
    rows = [
        {"image": image, "label": label}
        for image, label in (
            ({"bytes": picture, "path": "a.png"}, 3),
            ({"bytes": picture, "path": "a.png"}, -1),
            ({"bytes": picture, "path": "a.png"}, None),
            ({"bytes": None, "path": "/etc/hostname"}, 1),
            (None, 1),
        )
    ]
    path = next(folder.glob("train-*"))
    pq.write_table(pa.Table.from_pylist(rows), path)
    dataset = shards.ImageShards(path=str(folder))
    good, *bad = dataset.shards("train", tmp_path).examples(dataset, "train", 0)
    assert good.text == "3"
    kinds = ["wrong type", "missing field", "wrong type", "missing field"]
    assert [problem.kind for problem in bad] == kinds
    assert [problem.where for problem in bad] == [f"train-00000-of-00001.parquet, record {i}" for i in (1, 2, 3, 4)]


def twice(path):
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("folder.of/000002.txt")
        archive.addfile(info, io.BytesIO())


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda path: path.write_bytes(path.read_bytes() * 2), "another archive follows"),
        (twice, "000002.txt is there twice"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "cannot be read"),
        (
            lambda path: path.rename(path.with_name("train-0.tar.gz")),
            "found train-0.tar.gz, expected shards that are not",
        ),
    ],
)
def test_an_archive_that_would_lose_records_is_refused(spoil, said, tmp_path):
    folder = made.shard_folder(tmp_path / "data", "speech", "tar", (3,))
    spoil(next(folder.glob("train-*")))
    with pytest.raises(DataError, match=said):
        list(shards.in_folder(str(folder), *WANTED["speech"], "train").rows(0))


def test_another_file_of_the_same_size_is_another(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "images", "tar", (3,))
    found = shards.in_folder(str(folder), *WANTED["images"], "train")
    before = [row.stamp for row in found.rows(0)]
    path = next(folder.glob("train-*"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert not set(before) & {row.stamp for row in found.rows(0)}


def test_a_file_of_no_split_is_named(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "translation", "tar", (3,))
    (folder / "trane-0.tar").touch()
    with pytest.raises(DataError, match=r"found trane-0.tar, expected train-\*.parquet"):
        shards.in_folder(str(folder), {}, None, "train")


def of_shards(dataset, split, cache):
    found = dataset.shards(split, cache)
    return [dataset.example(split, row) for number in range(len(found.files)) for row in found.rows(number)]


def as_a_whole(examples, split):
    return [(e.id, e.text) if hasattr(e, "text") else (e.source, e.target) for e in examples if e and e.split == split]


def hub_dataset(name, folder):
    if name == "librispeech":
        rows = [{"id": f"1-2-{i}", "text": "A TEXT"} for i in range(3)]
        parts = dict.fromkeys(("train.100", "validation", "test"), rows)
        kinds = {"id": test_datasets.STRING, "text": test_datasets.STRING}
        path = test_datasets.hub_repository(folder, "clean", parts, kinds)
        return functools.partial(hub.LibriSpeech, path=str(path))
    if name == "speech_commands":
        parts = {s: [{"file": f"yes/{s}_{i}.wav", "label": i} for i in range(3)] for s in SPLITS}
        label = {"_type": "ClassLabel", "names": ["yes", "_silence_", "no"]}
        path = test_datasets.hub_repository(folder, "v0.02", parts, {"file": test_datasets.STRING, "label": label})
        return functools.partial(hub.SpeechCommands, path=str(path))
    if name == "wmt14":
        parts = {
            name: test_translation_datasets.nested(pairs) for name, pairs in test_translation_datasets.GOOD.items()
        }
        return functools.partial(
            parallel_hub.WMT14, repository=str(test_translation_datasets.repository(folder, "de-en", parts))
        )
    parts = {name: [{"en": en, "de": de} for en, de in pairs] for name, pairs in test_translation_datasets.GOOD.items()}
    return functools.partial(
        parallel_hub.Multi30k, repository=str(test_translation_datasets.repository(folder, "default", parts))
    )


@pytest.mark.parametrize("name", ["librispeech", "speech_commands", "wmt14", "multi30k"])
def test_a_repository_of_the_hub_is_read_as_a_stream(name, tmp_path):
    made_of = hub_dataset(name, tmp_path / "hub")
    dataset, streamed = made_of(), made_of(streaming=True)
    read = "pairs" if hasattr(dataset, "pairs") else "recordings"
    whole = list(getattr(dataset, read)(tmp_path / "cache", None))
    assert as_a_whole(whole, "train")
    assert as_a_whole(of_shards(streamed, "train", tmp_path / "cache"), "train") == as_a_whole(whole, "train")
    kept = list(getattr(streamed, read)(tmp_path / "cache", None))
    assert {e.split for e in kept} == {"validation", "test"}
    assert as_a_whole(kept, "test") == as_a_whole(whole, "test")


def test_imagenets_last_files_are_set_apart_from_a_stream(tmp_path):
    source = test_image_datasets.hub_repository(
        tmp_path / "hub", {"train": 8, "validation": 2}, "image", {"label": ["tench", "goldfish"]}
    )
    for i in range(3):
        shutil.copy(source / "train.parquet", source / f"train-{i}.parquet")
    card = source / "README.md"
    card.write_text(card.read_text().replace("path: train.parquet", "path: train-*.parquet"))
    dataset = imagenet.ImageNet(path=str(source), size=8, streaming=True)
    assert [len(dataset.shards(split, tmp_path).files) for split in SPLITS] == [2, 1, 1]
    counts = Counter(picture.split for picture in dataset.pictures(tmp_path / "cache", None))
    assert counts == {"validation": 8, "test": 2}
    assert {p.text for p in of_shards(dataset, "train", tmp_path)} == {"tench", "goldfish"}


@pytest.mark.parametrize("budget, most", [(None, 8), (40.0, 100), (15.0, 6), (1.0, 100)])
def test_batches_of_a_pool_take_as_much_of_every_lane(budget, most):
    rng = np.random.default_rng(0)
    lengths, starts = rng.uniform(1, 10, 50), np.array([0, 14, 28, 42, 50])
    found = columns(lengths, starts, budget, most, [1, 2, 3])
    assert sorted(np.concatenate(found)) == list(range(50))
    for batch in found:
        assert len(batch) <= most and (budget is None or len(batch) == 1 or len(batch) * lengths[batch].max() <= budget)
        assert list(batch) == sorted(batch)
    if budget is None:
        counts = [np.histogram(batch, starts)[0] for batch in found]
        assert sum(len(set(count)) == 1 for count in counts) >= len(counts) // 2, "even, as far as the lanes reach"
    again, other = (columns(lengths, starts, budget, most, [1, 2, n]) for n in (3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert [b.tolist() for b in found] != [b.tolist() for b in other]


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
    reader = Reader(run)
    module, learned = importlib.import_module(f"toolkit.{domain}"), folder / "learned"
    if not learned.exists():
        for name in ("tokenizer", "features"):
            (learned / name).mkdir(parents=True)
        module.learn(run, reader.sample(), learned)
    return Stream(reader, module.load(run, learned)), run


def through(found, run, engine=None, at=None, steps=30):
    """Goes through a stream as the loop does: where each batch begins, its ids and what it holds."""
    engine, at = engine or SimpleNamespace(rank=0, ranks=1), at or Progress()
    while at.step < steps:
        found.turn(engine, at)
        part = found.part(engine, at)
        for positions in part.batches(at.epoch)[at.batch :]:
            collator = part.collator
            if engine.ranks > 1:
                collator = Part(collator, engine.rank, engine.ranks, run.task.amounts, part.held)
            stands = (at.epoch, at.batch, dict(at.stream))
            yield stands, [part.split.ids[i] for i in positions], collator(positions, at.epoch)
            at.step, at.batch = at.step + 1, at.batch + 1


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


@pytest.mark.parametrize("sizes", [SIZES, (12, 1), (1, 1, 1, 9)])
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
    engines, found = test_devices.joined(2), {}
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
    assert rest[0][0] == (epoch, 0, {}) and "begun again" in " ".join(found.notes())


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
    assert re.search("left out.*unknown character.*train-00001-of-00004.tar, record 3", " ".join(found.notes()))


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
    with pytest.raises(DataError, match=f"which {devices} processes cannot share alike"):
        stream(folder, "translation", f"trainer.devices={devices}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
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


def train(domain, backend, folder, run, *overrides, code=0):
    words = arguments(domain, folder, f"backend={backend}", f"run_dir={run}", *overrides)
    command = [sys.executable, "-m", "toolkit.run", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def steps(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return np.array([(row["loss"], row["grad_norm"]) for row in rows if row["split"] == "train"])


def seen(run):
    return [json.loads(line)["ids"] for line in (run / "examples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("domain", DOMAINS)
def test_both_backends_train_alike_on_a_stream(trained, domain):
    (_, one), (_, other) = (trained(domain, backend) for backend in BACKENDS)
    assert len(seen(one)) == 12 and seen(one) == seen(other)
    np.testing.assert_allclose(steps(one), steps(other), rtol=1e-8)
    for run in (one, other):
        results = json.loads((run / "results.json").read_text())
        assert results["step"] > 0 and results["examples_per_second"] > 0 and "train" not in results["examples"]


@pytest.mark.parametrize("first, then", [("torch", "torch"), ("torch", "tf"), ("tf", "tf")])
def test_a_killed_run_goes_on_in_the_middle_of_a_pool(trained, first, then, tmp_path):
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


def test_two_processes_have_the_trajectory_of_one_on_a_stream(trained, tmp_path):
    data, whole = trained("speech", "torch")
    train("speech", "torch", data, tmp_path / "run", "trainer.devices=2")
    assert seen(tmp_path / "run") == seen(whole)
    np.testing.assert_allclose(steps(tmp_path / "run"), steps(whole), rtol=1e-8)


def test_a_bad_record_on_the_way_leaves_a_checkpoint_before_it(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "images", "parquet", (8, 8, 8))
    for path in folder.glob("train-0000[12]*"):  # the first shard alone is left whole: it may come last
        rows = made.records("images", 8)
        rows[-1]["png"] = b"no picture"
        made.write_parquet(path, rows)
    words = ["dataset.lanes=1", "dataset.pool=4", "dataset.sample=4", "trainer.checkpoint_every=1000", "seed=1"]
    done = train("images", "torch", folder, tmp_path / "run", *words, code=2)
    assert re.search(r"train-0000[12]-of-00003.parquet, record 7 .a.png.: mislabelled", done.stderr), done.stderr
    assert "resume=auto goes on from it by dataset.on_bad=drop" in done.stderr
    (left,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert int(left.name.removeprefix("step-")) >= 1
