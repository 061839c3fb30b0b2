"""Small data that the tests make themselves, one folder for each domain; all of it can be learned."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

TRAIN, VALIDATION, TEST = 24, 6, 6  # examples
RATE = 16000
LETTER = 0.12  # seconds
WORDS = ("ab", "ba", "cab", "bac", "abba", "cc", "aca")


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills once, however many processes of pytest-xdist ask for it: the others wait."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / name
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / "made").touch()
    return folder


def tones(text: str, seed: int = 0) -> np.ndarray:
    """``(samples,)`` float32: a tone for each letter, quiet for a space, with a little noise."""
    rng = np.random.Generator(np.random.Philox(key=[7, seed]))
    t = np.arange(int(LETTER * RATE)) / RATE
    fade = np.minimum(1, 10 * np.minimum(t, t[::-1]) / LETTER)
    parts = [np.sin(2 * np.pi * (300 + 400 * (ord(c) - ord("a"))) * t) * fade * (c != " ") for c in text]
    wave = 0.3 * np.concatenate(parts)
    return (wave + 0.003 * rng.standard_normal(len(wave))).astype(np.float32)


def texts(count: int, seed: int = 0) -> list[str]:
    """Different sentences of one to four words."""
    rng = np.random.Generator(np.random.Philox(key=[8, seed]))
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(rng.choice(WORDS, rng.integers(1, 5)))] = None
    return list(found)


def tone_folder(path: Path, train: int = TRAIN, validation: int = VALIDATION, test: int = TEST) -> Path:
    """A folder for ``dataset=audio_folder`` with its own splits: every letter is a tone."""
    sentences = iter(texts(train + validation + test))
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        folder = path / split
        folder.mkdir(parents=True)
        with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "transcription"])
            for i in range(count):
                text = next(sentences)
                soundfile.write(folder / f"{i}.wav", tones(text, i), RATE, subtype="PCM_16")
                rows.writerow([f"{i}.wav", text])
    return path


def pair_folder(path: Path, train: int = TRAIN, validation: int = VALIDATION, test: int = TEST) -> Path:
    """A folder for ``dataset=parallel_text`` with its own splits: the words of a sentence turned round."""
    path.mkdir(parents=True)
    sentences = iter(texts(train + validation + test))
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        lines = [f"{text}\t{text[::-1]}\n" for text in islice(sentences, count)]
        (path / f"{split}.tsv").write_text("".join(["en\tde\n", *lines]), encoding="utf-8")
    return path


def picture(label: int, seed: int, size: int = 16) -> np.ndarray:
    """``(size, size, 3)`` uint8: stripes that lie (0) or stand (1), or a chequered board (2), in noise."""
    rng = np.random.Generator(np.random.Philox(key=[9, seed]))
    lying = np.broadcast_to((np.arange(size) + rng.integers(4)) // 2 % 2, (size, size))
    pattern = (lying.T, lying, lying ^ lying.T)[label]
    return (150 * pattern[..., None] + rng.integers(0, 100, (size, size, 3))).astype(np.uint8)


def picture_folder(path: Path, train: int = TRAIN, validation: int = VALIDATION, test: int = TEST) -> Path:
    """A folder for ``dataset=image_folder`` with its own splits and a folder for each of three classes."""
    from PIL import Image

    for split, count in (("train", train), ("validation", validation), ("test", test)):
        for i in range(count):
            folder = path / split / ("lying", "standing", "board")[i % 3]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(i % 3, i + len(split) * 1000)).save(folder / f"{i}.png")
    return path


# domain -> option of ``dataset`` that takes a folder, and what makes one
FOLDERS = {
    "speech": ("audio_folder", tone_folder),
    "translation": ("parallel_text", pair_folder),
    "images": ("image_folder", picture_folder),
}

Record = dict[str, bytes | str]  # fields of a record; a file's has its suffix as name


def records(domain: str, count: int, seed: int = 0) -> list[Record]:
    """Examples of a domain, as a WebDataset has them."""
    if domain == "translation":
        return [{"en": text, "de": text[::-1]} for text in texts(count, seed)]
    if domain == "speech":
        return [{"wav": encoded(tones(text, i), RATE), "txt": text} for i, text in enumerate(texts(count, seed))]
    kinds = ("lying", "standing", "board")
    return [{"png": encoded(picture(i % 3, i + 1000 * seed)), "cls": kinds[i % 3]} for i in range(count)]


def encoded(values: np.ndarray, rate: int | None = None) -> bytes:
    """A WAV file, or without a sample rate a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    if rate:
        soundfile.write(file, values, rate, subtype="PCM_16", format="WAV")
    else:
        Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, rows: list[Record]) -> None:
    with tarfile.open(path, "w") as archive:
        for i, row in enumerate(rows):
            for field, value in row.items():
                info = tarfile.TarInfo(f"folder.of/{i:06}.{field}")
                content = value.encode() if isinstance(value, str) else value
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def write_parquet(path: Path, rows: list[Record]) -> None:
    """As the hub has them: a file in a field with its name, several groups of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = {"wav": "audio", "txt": "sentence", "png": "image", "cls": "label"}
    known = [
        {names.get(f, f): {"bytes": v, "path": f"a.{f}"} if isinstance(v, bytes) else v for f, v in row.items()}
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(known), path, row_group_size=5)


def write_tfrecord(path: Path, rows: list[Record]) -> None:
    from tensorboardX.record_writer import RecordWriter

    from toolkit.data.sources.tfrecord import example_class

    names = {"wav": "audio", "txt": "text", "png": "image/encoded", "cls": "image/class/text"}
    writer = RecordWriter(str(path))
    for row in rows:
        example = example_class()()
        for field, value in row.items():
            content = value.encode() if isinstance(value, str) else value
            example.features.feature[names.get(field, field)].byteslist.value.append(content)
        writer.write(example.SerializeToString())
    writer.close()


WRITERS = {"parquet": write_parquet, "tar": write_tar, "tfrecord": write_tfrecord}


def shard_folder(path: Path, domain: str, kind: str, sizes: Sequence[int], measured: int = 6) -> Path:
    """A folder for ``dataset=audio_shards`` and its like: training shards of these sizes, one of each other split."""
    path.mkdir(parents=True)
    rows = iter(records(domain, sum(sizes) + 2 * measured))
    for i, size in enumerate(sizes):
        WRITERS[kind](path / f"train-{i:05}-of-{len(sizes):05}.{kind}", list(islice(rows, size)))
    for split in ("validation", "test"):
        WRITERS[kind](path / f"{split}-0.{kind}", list(islice(rows, measured)))
    return path
