"""Shards of every kind: records, damage, and what is no shard of a split."""

import gzip
import io
import json
import subprocess
import sys
import tarfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import made
from tests.support.backend import ROOT
from toolkit.data.sources import shards, tfrecord
from toolkit.datasets.shards import AUDIO, IMAGE, LABEL, TEXT, ImageShards
from toolkit.errors import DataError

SIZES = (7, 5, 9, 4)  # records of the training shards
WANTED = {
    "speech": ({"recording": AUDIO, "transcript": TEXT}, "recording"),
    "translation": ({"source": ("en",), "target": ("de",)}, None),
    "images": ({"image": IMAGE, "class": LABEL}, "image"),
}


@pytest.mark.parametrize("kind", made.WRITERS)
@pytest.mark.parametrize("domain", WANTED)
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


def test_records_are_those_that_tensorflow_writes(tmp_path):
    path = tmp_path / "train-0.tfrecord"
    command = [sys.executable, "-m", "tests.workers.tfrecords", str(path)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    with open(path, "rb") as file:
        found = list(tfrecord.read(file, 0, {}))
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
    dataset = ImageShards(path=str(folder))
    good, *bad = dataset.shards("train", tmp_path).examples(dataset, "train", 0)
    assert good.values["label"] == "3"
    kinds = ["wrong type", "missing field", "wrong type", "missing field"]
    assert [problem.kind for problem in bad] == kinds
    assert [problem.where for problem in bad] == [f"train-00000-of-00001.parquet, record {i}" for i in (1, 2, 3, 4)]


def test_a_number_without_name_falls_back_to_another_column(tmp_path):
    features = datasets.Features(
        {"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["cat", "dog"])}
        | {"class": datasets.Value("string")}
    )
    rows = {"image": [b"1"] * 4, "label": [1, -1, -1, -1], "class": [None, "cow", "owl", None]}
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "data/train-0.parquet")
    found = list(shards.in_folder(str(tmp_path / "data"), *WANTED["images"], "train").rows(0))
    assert [row.fields["class"] for row in found[:3]] == ["dog", "cow", "owl"]
    assert found[3].kind == "bad label" and "found class -1, expected 0 to 1 in label" in found[3].message


@pytest.mark.parametrize("first", ["json", "flac"])
def test_a_json_in_a_tar_has_the_fields_that_no_other_file_has(first, tmp_path):
    text = json.dumps({"text": "of the json", "duration": 1.5})
    rows = [{"flac": b"1", "json": text}, {"flac": b"2", "json": text, "txt": "of the file"}]
    rows += [{"flac": b"3", "json": content} for content in ("[1]", "{", '{"speaker": "a"}')]
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/train-0.tar"
    made.write_tar(path, [dict(sorted(row.items(), key=lambda item: item[0] != first)) for row in rows])
    good, other, *bad = shards.in_folder(str(tmp_path / "data"), *WANTED["speech"], "train").rows(0)
    assert (good.fields, good.read(), good.file_name) == ({"transcript": "of the json"}, b"1", "folder.of/000000.flac")
    assert other.fields == {"transcript": "of the file"}
    assert [problem.kind for problem in bad] == ["bad metadata", "bad metadata", "missing field"]
    assert "its .json is not a JSON object {...} and no other file is one of text, sentence" in bad[0].message


def twice(path):
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("folder.of/000002.txt")
        archive.addfile(info, io.BytesIO())


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda path: path.write_bytes(path.read_bytes() * 2), "another archive follows"),
        (twice, "000002.txt is in the archive twice"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "cannot be read"),
        (
            lambda path: path.rename(path.with_name("train-0.tar.gz")),
            "found train-0.tar.gz, expected uncompressed shards",
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


def test_hidden_folders_are_ignored(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "speech", "tar", (3,))
    (folder / ".cache").mkdir()
    (folder / ".cache/download-0.tar.gz").touch()
    assert len(shards.in_folder(str(folder), *WANTED["speech"], "train").files) == 1


def test_a_file_of_no_split_is_named(tmp_path):
    folder = made.shard_folder(tmp_path / "data", "translation", "tar", (3,))
    (folder / "trane-0.tar").touch()
    with pytest.raises(DataError, match=r"found trane-0.tar, expected train-\*.parquet"):
        shards.in_folder(str(folder), {}, None, "train")
