"""Decoding of audio files to waveforms: mixed to mono and resampled once; the same for both frameworks.

libsndfile decodes WAV (8, 16, 24, 32 bit, float), FLAC, Ogg (Vorbis, Opus), MP3, AIFF and AU; FFmpeg decodes everything
else (MP4, WebM, AAC, AMR, raw G.722). Mono is the mean of the channels; resampling is soxr's "HQ" recipe.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

from toolkit.data.cache import Undecodable

# Part of the cache key: increment it when the same file would be decoded to other samples than before.
VERSION = 2

# Speech is unintelligible below and no recorder works above; such a rate in a header means that it is damaged.
SAMPLE_RATES = (4_000, 384_000)  # Hz

# Floats may exceed full scale a little; above 16 (24 dB) they are integers stored as floats.
LARGEST_PEAK = 16.0

# Below this ratio of the mean's level to that of the channels (-60 dB), the mean has nothing of what they have.
_CANCELLED = 1e-3

# Sizes of a WAV's data in headers that were written before the end was known: by a recorder that was stopped, and by
# SoX and arecord into a pipe. libsndfile reads files with FFmpeg's 0xFFFFFFFF to their end.
_UNFINISHED = (0, 0x7FFFF000, 0x80000000)

UNCOUNTED = 2**62  # libsndfile reports more frames for a stream without a count
_BLOCK = 1 << 20  # samples decoded at a time

_SUFFIXES = {
    "WAV": (".wav", ".wave"),
    "FLAC": (".flac",),
    "Ogg": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",),
    "AIFF": (".aif", ".aiff", ".aifc"),
    "AU": (".au", ".snd"),
    "MP4": (".m4a", ".mp4", ".m4b", ".mov", ".3gp"),
    "Matroska/WebM": (".webm", ".mkv", ".mka"),
    "AAC": (".aac",),
    "AMR": (".amr",),
    "G.722": (".g722",),
}
FORMATS = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}
SOUNDFILE = {"WAV", "FLAC", "Ogg", "MP3", "AIFF", "AU"}


class BadAudio(Undecodable):
    """Error of a recording that cannot be used."""


def decode(data: bytes, name: str, sample_rate: int) -> np.ndarray:
    """Decode one recording.

    Args:
        data: the whole file.
        name: its file name; a known suffix must agree with the content.
        sample_rate: of the result, in Hz.

    Returns:
        ``(samples,)`` float32, full scale is 1.0.

    Raises:
        BadAudio: empty, unreadable, truncated, mislabelled, silent, cancelled, not finite, out of scale, or an
            implausible rate.
    """
    waveform = _Waveform(sample_rate)
    for channels, rate in _channels(data, name):
        waveform.add(channels, rate)
    return waveform.samples()


class _Waveform:
    """Waveform that is checked, mixed to mono and resampled block by block, so that only the result needs memory."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.rate = 0  # of the file, in Hz
        self.count = 0  # samples of the file
        self.bad, self.first_bad = 0, 0  # samples that are not finite, and the position of the first
        self.low, self.high = np.inf, -np.inf
        self.energy, self.energies = 0.0, np.zeros(0)  # sum of squares, of the mean and of each channel
        self.content = bytearray()  # grows in place
        self.resampler: Any = None

    def add(self, channels: np.ndarray, rate: int) -> None:
        """Add ``(samples, channels)`` float32 at a rate in Hz, which all blocks share."""
        import soxr

        if not SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]:
            raise BadAudio("sample rate", f"found {rate} Hz, expected {SAMPLE_RATES[0]} to {SAMPLE_RATES[1]} Hz")
        self.rate = rate
        self._measure(channels)
        mono = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1, dtype=np.float64).astype(np.float32)
        if channels.shape[1] > 1:
            self._weigh(channels, mono)
        if rate != self.sample_rate:
            self.resampler = self.resampler or soxr.ResampleStream(rate, self.sample_rate, 1, "float32", "HQ")
            mono = self.resampler.resample_chunk(mono)
        self.content += np.ascontiguousarray(mono, np.float32).data.cast("B")

    def _measure(self, channels: np.ndarray) -> None:
        finite = np.isfinite(channels).all(axis=1)
        if not self.bad and not finite.all():
            self.first_bad = self.count + int(np.argmin(finite))
        self.bad += int(np.sum(~finite))
        self.count += len(channels)
        if channels.size:
            self.low, self.high = min(self.low, float(channels.min())), max(self.high, float(channels.max()))

    def _weigh(self, channels: np.ndarray, mono: np.ndarray) -> None:
        self.energy += float(np.dot(mono, mono))
        energies = np.array([np.dot(channel, channel) for channel in channels.T], np.float64)
        self.energies = self.energies + energies if len(self.energies) else energies

    def samples(self) -> np.ndarray:
        """Return ``(samples,)`` float32, unless the recording cannot be used."""
        self._require_usable()
        if self.resampler:
            self.content += self.resampler.resample_chunk(np.zeros(0, np.float32), last=True).data.cast("B")
        if not self.content:
            raise BadAudio("empty", f"{self.count} samples at {self.rate} Hz are none at {self.sample_rate} Hz")
        return np.frombuffer(self.content, np.float32)

    def _require_usable(self) -> None:
        if not self.count:
            raise BadAudio("empty", "the file has a header and 0 samples")
        if self.bad:
            first = f"the first one at {self.first_bad / self.rate:.3f} s"
            raise BadAudio("not finite", f"{self.bad} samples are NaN or infinite, {first}")
        peak = max(-self.low, self.high)
        if peak > LARGEST_PEAK:
            raise BadAudio("out of scale", f"the peak is {peak:g}, expected full scale to be 1.0")
        if self.low == self.high:
            raise BadAudio("silent", f"all {self.count:,} samples have the value {self.low:g}, expected speech")
        if len(self.energies) and self.energy < _CANCELLED**2 * self.energies.max():
            message = f"the {len(self.energies)} channels are in opposite phase and their mean is silence"
            raise BadAudio("cancelled", f"{message}, expected channels that can be mixed; keep only one of them")


def samples(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """Return the ``(samples, channels)`` float32 of a recording and its sample rate in Hz, unchecked.

    Raises:
        BadAudio: empty, unreadable, truncated or mislabelled.
    """
    blocks = list(_channels(data, name))
    if not blocks:
        raise BadAudio("empty", "the file has a header and 0 samples")
    return np.concatenate([channels for channels, _ in blocks]), blocks[0][1]


def _channels(data: bytes, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yield blocks of ``(samples, channels)`` float32, and their sample rate in Hz."""
    if not isinstance(data, bytes):
        raise BadAudio("wrong type", f"found {type(data).__name__}, expected the bytes of a file")
    if not data:
        raise BadAudio("empty", "the file has 0 bytes")
    kind = _detect_format(data, PurePath(name).suffix.lower())
    data = _finished(data) if kind == "WAV" else data
    _require_whole(data, kind)
    yield from _by_soundfile(data, kind) if kind in SOUNDFILE else _by_ffmpeg(data, kind)


def sniff(data: bytes) -> str | None:
    """Detect the format from the first bytes of a file; None if unknown."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return "WAV"
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if data[4:8] == b"ftyp":
        return "MP4"
    starts = {
        b"fLaC": "FLAC",
        b"OggS": "Ogg",
        b"ID3": "MP3",
        b".snd": "AU",
        b"\x1a\x45\xdf\xa3": "Matroska/WebM",
        b"#!AMR": "AMR",
    }
    for start, name in starts.items():
        if data.startswith(start):
            return name
    # An MPEG audio frame: 11 sync bits, then version and layer. Layer 0 is AAC in ADTS.
    if len(data) > 3 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "AAC" if data[1] & 0x06 == 0 else "MP3"
    if data[:2] == b"PK":
        return "a ZIP archive"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:512]):
        return "text"
    return None


def _detect_format(data: bytes, suffix: str) -> str:
    expected, found = FORMATS.get(suffix), sniff(data)
    if found in _SUFFIXES and expected in (found, None):
        return str(found)
    if expected == "G.722" and found != "text":
        return expected  # raw codec bytes: any first bytes are valid
    if found is None:
        raise BadAudio("unreadable", f"begins with bytes {data[:4].hex(' ')}, expected {expected or 'an audio file'}")
    if found in _SUFFIXES:
        raise BadAudio("mislabelled", f"named {suffix} but holds {found}: rename it to {_SUFFIXES[found][0]}")
    raise BadAudio(
        "mislabelled", f"named {suffix or 'without suffix'} but holds {found}, expected {expected or 'audio'}"
    )


def _require_whole(data: bytes, kind: str) -> None:
    """Refuse a WAV or Ogg that is shorter than its headers declare; libsndfile silently reads the truncated file."""
    if kind == "WAV":
        declared = _wav_size(data)
    elif kind == "Ogg":
        declared = _ogg_size(data)
    else:
        return
    if declared > len(data):
        raise BadAudio("truncated", f"the header promises {declared:,} bytes, the file has {len(data):,}")


def _wav_size(data: bytes) -> int:
    """Return the file size that its ``data`` chunk requires, in bytes; 0 if it has none (RF64, a stream of FFmpeg)."""
    at, size = _samples_of(data)
    return 0 if size == 0xFFFFFFFF else at + size


def _samples_of(data: bytes) -> tuple[int, int]:
    """Return start and declared size of the samples of a WAV, in bytes; the start is past the end if it has none."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return at + 8, size
        at += 8 + size + size % 2
    return at + 8, 0


def _finished(data: bytes) -> bytes:
    """Return a WAV whose header has the size of all samples, if the file's writer did not know it."""
    at, size = _samples_of(data)
    rest = len(data) - at
    whole = _are_chunks(data, at) if size == 0 else size <= rest
    if size not in _UNFINISHED or whole:
        return data
    return b"".join((data[:4], _uint32(len(data) - 8), data[8 : at - 4], _uint32(rest), data[at:]))


def _are_chunks(data: bytes, at: int) -> bool:
    """Return True if the rest of a file is empty or consists of chunks, such as LIST after no samples."""
    while at < len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if not (name.isascii() and name.decode().isprintable()):
            return False
        at += 8 + size + size % 2
    return True


def _uint32(size: int) -> bytes:
    return size.to_bytes(4, "little")


def _ogg_size(data: bytes) -> int:
    """Return the file size that its last page requires, in bytes; more than it has if the stream is unfinished."""
    last = data.rfind(b"OggS")
    header = data[last : last + 27]
    if len(header) < 27:
        return last + 27
    lacing = data[last + 27 : last + 27 + header[26]]
    end = last + 27 + header[26] + sum(lacing)
    ends_stream = header[5] & 0x04
    return end if ends_stream else max(end, len(data) + 1)


class _Stream(io.BytesIO):
    """A file in memory that clamps seeks before its start, as libsndfile does in damaged files.

    An error in libsndfile's callback would only be printed.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return super().seek(0)


def _by_soundfile(data: bytes, kind: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yield blocks of channels, and their sample rate."""
    import soundfile

    try:
        file = soundfile.SoundFile(_Stream(data))
    except soundfile.LibsndfileError as error:
        raise BadAudio("unreadable", f"not a valid {kind} file: {_reason(error)}") from None
    with file:
        count, block = 0, np.zeros((_BLOCK, 1), np.float32)
        while len(block) == _BLOCK:
            try:
                # In blocks, since a damaged header may declare more samples than memory holds.
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise BadAudio("truncated", f"decoding stopped in the middle: {_reason(error)}") from None
            count += len(block)
            yield block, file.samplerate
        # An MP3 or FLAC stream without a count declares 0 or a huge number.
        if count < file.frames < UNCOUNTED:
            raise BadAudio("truncated", f"the header promises {file.frames:,} samples, {count:,} are there")


def _reason(error: Any) -> str:
    return str(error.error_string).removeprefix("Error : ").rstrip(".")


def _by_ffmpeg(data: bytes, kind: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yield blocks of channels, and their sample rate."""
    import av

    raw = "g722" if kind == "G.722" else None
    try:
        with av.open(io.BytesIO(data), "r", format=raw) as container:
            if not container.streams.audio:
                raise BadAudio("unreadable", f"the {kind} file has no audio track")
            stream = container.streams.audio[0]
            count = 0
            for block in _blocks(_frames(container, stream)):
                count += len(block)
                yield block, int(stream.rate)
            declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            rate = int(stream.rate)
    except av.FFmpegError as error:
        raise BadAudio("unreadable", f"not a valid {kind} file: {error.strerror}") from None
    # A codec's delay and padding may be missing at the ends; no codec has more than 0.1 s and 1 %.
    if not raw and count / rate < 0.99 * declared - 0.1:
        raise BadAudio("truncated", f"the header promises {declared:.2f} s, {count / rate:.2f} s are there")


def _frames(container: Any, stream: Any) -> Iterator[np.ndarray]:
    """Yield the frames of a codec as ``(channels, samples)`` float32."""
    import av

    as_float = av.AudioResampler(format="fltp")
    first = None
    for frame in container.decode(stream):
        kept = {"number of channels": frame.layout.nb_channels, "sample rate": frame.sample_rate}
        first = first or kept
        if changed := [f"{name} {first[name]} to {kept[name]}" for name in kept if kept[name] != first[name]]:
            raise BadAudio("unreadable", f"it changes in the middle: {', '.join(changed)}")
        yield from (converted.to_ndarray() for converted in as_float.resample(frame))
    yield from (converted.to_ndarray() for converted in as_float.resample(None))


def _blocks(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield ``(samples, channels)`` of at least ``_BLOCK`` samples, except the last."""
    waiting: list[np.ndarray] = []
    count = 0
    for frame in frames:
        waiting.append(frame)
        count += frame.shape[1]
        if count >= _BLOCK:
            yield np.concatenate(waiting, axis=1).T
            waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting, axis=1).T
