"""Small speech-like data that the tests make themselves: every letter is a tone, so that it can be learned."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
LETTER = 0.12  # seconds
WORDS = ("ab", "ba", "cab", "bac", "abba", "cc", "aca")


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


def tone_folder(path: Path, train: int = 24, validation: int = 6, test: int = 6) -> Path:
    """A folder for ``dataset=audio_folder`` with its own splits."""
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
