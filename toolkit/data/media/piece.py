"""Pieces of recordings: an utterance of a longer file."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from toolkit.data.media import audio

OVERSHOOT = 0.5  # seconds by which the end of a piece may exceed its recording, as in Kaldi
HEAD = 512  # bytes that tell the format


def read(path: Path, start: float, seconds: float | None) -> bytes:
    """Return a piece of a recording as a WAV file of 32-bit floats with its sample rate and channels.

    Args:
        path: of the recording.
        start: of the piece, in seconds.
        seconds: its length; None: it ends with the recording.

    Raises:
        BadAudio: the recording cannot be decoded, or the piece is not inside it.
        OSError: the file cannot be read.
    """
    samples, rate = _sought(path, start, seconds) or _cut(path, start, seconds)
    return _wav(samples, rate)


def _sought(path: Path, start: float, seconds: float | None) -> tuple[np.ndarray, int] | None:
    """Read only the piece; None if the file must be decoded from its start, or is not what its name says."""
    import soundfile

    with path.open("rb") as stream:
        kind = audio.sniff(stream.read(HEAD))
    if kind not in audio.SOUNDFILE or audio.FORMATS.get(path.suffix.lower()) != kind:
        return None
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            if file.frames >= audio.UNCOUNTED:
                return None
            first, end = _bounds(start, seconds, file.samplerate, file.frames)
            if not file.seekable() or not 0 <= first < end <= file.frames:
                return None
            file.seek(first)
            samples = file.read(end - first, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        return None  # decoding the whole file says what is wrong
    return (samples, file.samplerate) if len(samples) == end - first else None


def _cut(path: Path, start: float, seconds: float | None) -> tuple[np.ndarray, int]:
    """Decode the whole recording and return the piece."""
    samples, rate = audio.samples(path.read_bytes(), path.name)
    first, end = _bounds(start, seconds, rate, len(samples))
    if not first < min(end, len(samples)) or end > len(samples) + OVERSHOOT * rate:
        message = f"found {first / rate:.3f} to {end / rate:.3f} s, expected a part of its {len(samples) / rate:.3f} s"
        raise audio.BadAudio("outside the recording", message)
    return samples[first:end], rate


def _bounds(start: float, seconds: float | None, rate: int, frames: int) -> tuple[int, int]:
    return round(start * rate), frames if seconds is None else round((start + seconds) * rate)


def _wav(samples: np.ndarray, rate: int) -> bytes:
    """Return ``(samples, channels)`` float32 as a WAV file, which is equal for equal samples.

    libsndfile would write the time into it.
    """
    data, channels = samples.astype("<f4").tobytes(), samples.shape[1]
    form = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4, channels * 4, 32)
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data
