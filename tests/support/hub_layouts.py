"""Repositories of the hub in the layout of the real ones: names, configurations, splits, columns and files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from tests.support import bad_input, bad_pictures, made
from tests.support.hub import STRING, Rows
from tests.support.hub_server import PARQUET, Repository

AUDIO, IMAGE = {"_type": "Audio"}, {"_type": "Image"}
LONG = {"_type": "Value", "dtype": "int64"}
SPLITS = ("train", "validation", "test")


def parquet(rows: Rows, features: Mapping[str, Any]) -> bytes:
    """Return a file with two row groups; the hub's library stores the features in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows))
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=max(1, len(rows) // 2))
    return file.getvalue()


def card(configs: Mapping[str, Mapping[str, str]]) -> bytes:
    """Return a README that declares configurations: name -> split -> pattern of its files."""
    lines = ["---", "configs:"]
    for name, patterns in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [line for split, path in patterns.items() for line in (f"  - split: {split}", f"    path: {path}")]
    return "\n".join([*lines, "---", "# A data set", ""]).encode()


def sharded(folder: str, split: str, shards: Sequence[bytes]) -> dict[str, bytes]:
    """Name the files of a split as ``push_to_hub`` does."""
    return {f"{folder}/{split}-{i:05}-of-{len(shards):05}.parquet": content for i, content in enumerate(shards)}


def exported(folder: str, split: str, shards: Sequence[bytes]) -> dict[str, bytes]:
    """Name the files of a split as the hub's own export to Parquet does."""
    return {f"{folder}/{split}/{i:04}.parquet": content for i, content in enumerate(shards)}


def recording(seed: int, name: str) -> dict[str, Any]:
    return {"bytes": bad_input.encoded(bad_input.waveform(seed, 0.2)), "path": name}


def image(seed: int) -> dict[str, Any]:
    return {"bytes": bad_pictures.encoded(bad_pictures.pixels(seed, 8, 8)), "path": None}


def classes(names: Sequence[str]) -> dict[str, Any]:
    return {"_type": "ClassLabel", "names": list(names)}


def librispeech() -> Repository:
    """``openslr/librispeech_asr``."""
    text = dict.fromkeys(("file", "text", "id"), STRING)
    features = {"audio": AUDIO, **text, "speaker_id": LONG, "chapter_id": LONG}

    def shard(seed: int) -> bytes:
        names = [f"{seed}-7-{i:04}" for i in range(4)]
        rows = [
            {
                "file": f"{name}.flac",
                "audio": recording(10 * seed + i, f"{name}.flac"),
                "text": "A SHORT TEXT " + "XY"[i % 2],
                "speaker_id": seed,
                "chapter_id": 7,
                "id": name,
            }
            for i, name in enumerate(names)
        ]
        return parquet(rows, features)

    splits = {
        "clean": ("train.100", "train.360", "validation", "test"),
        "other": ("train.500", "validation", "test"),
    }
    files = {}
    for seed, (name, split) in enumerate([(name, split) for name, parts in splits.items() for split in parts]):
        count = 2 if split == "train.100" else 1
        files |= exported(name, split, [shard(10 * seed + i + 1) for i in range(count)])
    configs = {name: {split: f"{name}/{split}/*.parquet" for split in parts} for name, parts in splits.items()}
    return Repository({"main": {"README.md": card(configs), **files}})


def common_voice() -> Repository:
    """``fixie-ai/common_voice_17_0``."""
    text = dict.fromkeys(("client_id", "path", "sentence", "age", "gender", "accent", "locale", "segment"), STRING)
    features = {"audio": AUDIO, **text, "up_votes": LONG, "down_votes": LONG}

    def shard(split: str, seed: int) -> bytes:
        rows = []
        for i in range(4):
            name = f"common_voice_en_{split}{seed}{i}.mp3"
            row = dict.fromkeys(text, "") | {"path": name, "sentence": f"A {split} \N{LEFT DOUBLE QUOTATION MARK}text."}
            rows.append(row | {"audio": recording(7 * seed + i, name), "up_votes": 2, "down_votes": 0})
        return parquet(rows, features)

    counts = {"train": 2, "validation": 1, "test": 1, "other": 1}
    files = {}
    for split, count in counts.items():
        files |= sharded("en", split, [shard(split, i) for i in range(count)])
    return Repository({"main": {"README.md": card({"en": {split: f"en/{split}-*" for split in counts}}), **files}})


def speech_commands() -> Repository:
    """``google/speech_commands``: a loading script, and the hub's export."""
    short = {"_type": "Value", "dtype": "int8"}
    boolean = {"_type": "Value", "dtype": "bool"}
    label = classes(["yes", "no", "_unknown_", "_silence_"])
    texts = {"file": STRING, "speaker_id": STRING}
    features = {**texts, "audio": AUDIO, "label": label, "is_unknown": boolean, "utterance_id": short}
    files: dict[str, bytes] = {}
    for version in ("v0.01", "v0.02"):
        for seed, split in enumerate(SPLITS):
            names = [f"yes/{seed}a_nohash_0.wav", "_background_noise_/tap.wav", f"no/{seed}b_nohash_0.wav"]
            rows = [
                {
                    "file": name,
                    "audio": recording(10 * seed + i, name),
                    "label": (0, 3, 1)[i],
                    "is_unknown": False,
                    "speaker_id": None if i == 1 else f"{seed}a",
                    "utterance_id": 0,
                }
                for i, name in enumerate(names)
            ]
            files |= exported(version, split, [parquet(rows, features)])
    script = {"README.md": b"# Speech Commands\n", "speech_commands.py": b"raise RuntimeError\n"}
    return Repository({"main": script, PARQUET: {".gitattributes": b"", **files}})


def pairs(split: str, number: int = 6) -> list[dict[str, str]]:
    return [{"de": f"ein {split} Satz {i}", "en": f"a {split} sentence {i}"} for i in range(number)]


def nested(split: str, shards: int = 1) -> list[bytes]:
    """Return files of pairs in the column ``translation``."""
    features = {"translation": {"_type": "Translation", "languages": ["de", "en"]}}
    rows = [{"translation": pair} for pair in pairs(split)]
    return [parquet(rows[i::shards], features) for i in range(shards)]


def iwslt() -> Repository:
    """``IWSLT/iwslt2017``: a loading script, and the hub's export."""
    files: dict[str, bytes] = {}
    for name in ("iwslt2017-de-en", "iwslt2017-en-de"):
        for split in SPLITS:
            files |= exported(name, split, nested(split))
    script = {"README.md": b"# IWSLT 2017\n", "iwslt2017.py": b"raise RuntimeError\n"}
    return Repository({"main": script, PARQUET: {".gitattributes": b"", **files}})


def wmt14() -> Repository:
    """``wmt/wmt14``."""
    files: dict[str, bytes] = {}
    for split in SPLITS:
        files |= sharded("de-en", split, nested(split, 3 if split == "train" else 1))
    return Repository({"main": {"README.md": card({"de-en": {s: f"de-en/{s}-*" for s in SPLITS}}), **files}})


def multi30k() -> Repository:
    """``bentrevett/multi30k``: lines of JSON, and the hub's export."""
    names = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}
    lines = {name: "".join(json.dumps(pair) + "\n" for pair in pairs(split)) for split, name in names.items()}
    files: dict[str, bytes] = {}
    for split in SPLITS:
        files |= exported("default", split, [parquet(pairs(split), {"en": STRING, "de": STRING})])
    main = {"README.md": b"# Multi30k\n", **{name: text.encode() for name, text in lines.items()}}
    return Repository({"main": main, PARQUET: {".gitattributes": b"", **files}})


def tatoeba() -> Repository:
    """``sentence-transformers/parallel-sentences-tatoeba``."""
    rows = [{"english": f"sentence {i}", "non_english": f"Satz {i}"} for i in range(20)]
    files = sharded("en-de", "train", [parquet(rows, {"english": STRING, "non_english": STRING})])
    return Repository({"main": {"README.md": card({"en-de": {"train": "en-de/train-*"}}), **files}})


def images(
    name: str,
    folder: str,
    column: str,
    labels: Mapping[str, Sequence[str]],
    shards: Mapping[str, int],
    gated: bool = False,
) -> Repository:
    """Return a repository of images of 8 x 8 pixels, four in a file.

    Args:
        name: of the configuration.
        folder: of the files.
        column: of the image.
        labels: column -> names of its classes.
        shards: split -> number of files.
        gated: ask for a token.
    """
    features = {column: IMAGE} | {c: classes(names) for c, names in labels.items()}
    files: dict[str, bytes] = {}
    for split, count in shards.items():
        parts = []
        for shard in range(count):
            seeds = range(100 * len(split) + 4 * shard, 100 * len(split) + 4 * shard + 4)
            unknown = split == "test" and "validation" in shards  # ImageNet's test split has no classes
            numbers = [{c: -1 if unknown else seed % len(names) for c, names in labels.items()} for seed in seeds]
            parts.append(parquet([{column: image(s), **n} for s, n in zip(seeds, numbers, strict=True)], features))
        files |= sharded(folder, split, parts)
    patterns = {split: f"{folder}/{split}-*" for split in shards}
    return Repository({"main": {"README.md": card({name: patterns}), **files}}, gated)


def repositories() -> dict[str, Repository]:
    """Return all repositories: id -> dataset."""
    from toolkit.datasets import cifar, mnist

    two = {"train": 1, "test": 1}
    fine = {"fine_label": cifar.NAMES_100, "coarse_label": ["people", "trees"]}
    return {
        "openslr/librispeech_asr": librispeech(),
        "fixie-ai/common_voice_17_0": common_voice(),
        "google/speech_commands": speech_commands(),
        "IWSLT/iwslt2017": iwslt(),
        "wmt/wmt14": wmt14(),
        "bentrevett/multi30k": multi30k(),
        "sentence-transformers/parallel-sentences-tatoeba": tatoeba(),
        "ILSVRC/imagenet-1k": images(
            "default",
            "data",
            "image",
            {"label": ["tench, Tinca tinca", "goldfish, Carassius auratus"]},
            {"train": 3, "validation": 1, "test": 1},
            gated=True,
        ),
        "uoft-cs/cifar10": images("plain_text", "plain_text", "img", {"label": cifar.NAMES_10}, two),
        "uoft-cs/cifar100": images("cifar100", "cifar100", "img", fine, two),
        "ylecun/mnist": images("mnist", "mnist", "image", {"label": list("0123456789")}, two),
        "zalando-datasets/fashion_mnist": images(
            "fashion_mnist", "fashion_mnist", "image", {"label": mnist.CLOTHING}, two
        ),
    }


SHAPES = ["lying", "standing", "board"]  # classes of made images
LEARNABLE: dict[str, tuple[str, str, dict[str, Any]]] = {  # id -> domain, configuration, features
    "openslr/librispeech_asr": ("speech", "clean", {"audio": AUDIO, "text": STRING, "id": STRING}),
    "wmt/wmt14": ("translation", "de-en", {"translation": {"_type": "Translation", "languages": ["de", "en"]}}),
    "ILSVRC/imagenet-1k": ("images", "default", {"image": IMAGE, "label": classes(SHAPES)}),
}


def learnable_row(domain: str, record: made.Record, name: str) -> dict[str, Any]:
    """Return a made record as the real repository of its domain has it."""
    if domain == "speech":
        return {"audio": {"bytes": record["wav"], "path": f"{name}.wav"}, "text": record["txt"], "id": name}
    if domain == "translation":
        return {"translation": record}
    return {"image": {"bytes": record["png"], "path": None}, "label": SHAPES.index(str(record["cls"]))}


def learnable() -> dict[str, Repository]:
    """Return a repository of each domain whose few training shards, of different sizes, can be learned."""
    repositories = {}
    for id, (domain, config, features) in LEARNABLE.items():
        files: dict[str, bytes] = {}
        folder = {"images": "data"}.get(domain, config)
        splits = {"train.100" if domain == "speech" else "train": (7, 5, 9, 4), "validation": (6,), "test": (6,)}
        for number, (split, sizes) in enumerate(splits.items()):
            records = iter(made.records(domain, sum(sizes), number))
            shards = [
                [learnable_row(domain, record, f"{split}-{i}-{j}") for j, record in enumerate(islice(records, size))]
                for i, size in enumerate(sizes)
            ]
            files |= sharded(folder, split, [parquet(rows, features) for rows in shards])
        patterns = {split: f"{folder}/{split}-*" for split in splits}
        main = {"README.md": card({config: patterns}), **files}
        repositories[id] = Repository({"main": main}, gated=domain == "images")
    return repositories
