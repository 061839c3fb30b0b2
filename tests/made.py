"""Small data that the tests make themselves, one folder for each domain; all of it can be learned."""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Callable
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
