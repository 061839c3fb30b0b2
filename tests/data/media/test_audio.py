"""Audio files of all kinds give the waveform that was written into them."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import soundfile

from toolkit.data.media import audio

RATE = 16_000  # Hz


def tone(rate: int = RATE, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def written(samples: np.ndarray, rate: int, kind: str, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def written_by_ffmpeg(samples: np.ndarray, rate: int, container: str, codec: str, channels: int = 1) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        layout = "mono" if channels == 1 else "stereo"
        track = out.add_stream(codec, rate=rate, layout=layout)
        pcm = (samples * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = rate
        for part in [*av.AudioResampler(format=track.format, rate=rate, layout=layout).resample(frame), None]:
            for packet in track.encode(part):
                out.mux(packet)
    return stream.getvalue()


# container, subtype, suffix, largest error of a sample: half a step of the quantiser, or what the lossy codec does here
@pytest.mark.parametrize(
    ("kind", "subtype", "suffix", "error"),
    [
        ("WAV", "PCM_U8", ".wav", 2**-7),
        ("WAV", "PCM_16", ".wav", 2**-15),
        ("WAV", "PCM_24", ".wav", 2**-23),
        ("WAV", "PCM_32", ".wav", 2**-24),
        ("WAV", "FLOAT", ".wav", 0.0),
        ("WAV", "DOUBLE", ".wav", 0.0),
        ("WAVEX", "PCM_24", ".WAV", 2**-23),
        ("FLAC", "PCM_16", ".flac", 2**-15),
        ("FLAC", "PCM_24", ".flac", 2**-23),
        ("AIFF", "PCM_16", ".aiff", 2**-15),
        ("AU", "PCM_16", ".au", 2**-15),
        ("OGG", "VORBIS", ".ogg", 0.05),
        ("OGG", "OPUS", ".opus", 0.05),
        ("MP3", "MPEG_LAYER_III", ".mp3", 0.05),
    ],
)
def test_soundfile_formats(kind: str, subtype: str, suffix: str, error: float) -> None:
    samples = tone()
    decoded = audio.decode(written(samples, RATE, kind, subtype), f"a{suffix}", RATE)
    assert decoded.dtype == np.float32 and decoded.shape == samples.shape
    np.testing.assert_allclose(decoded[800:-800], samples[800:-800], rtol=0, atol=error)


@pytest.mark.parametrize(
    ("container", "codec", "suffix", "rate"),
    [("mp4", "aac", ".m4a", 16_000), ("webm", "libopus", ".webm", 48_000), ("g722", "g722", ".g722", 16_000)],
)
def test_ffmpeg_formats(container: str, codec: str, suffix: str, rate: int) -> None:
    samples = tone(rate)
    decoded = audio.decode(written_by_ffmpeg(samples, rate, container, codec), f"a{suffix}", RATE)
    assert abs(len(decoded) - RATE) <= 0.1 * RATE  # codecs pad to whole frames
    middle = decoded[4000:12000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * RATE / len(middle) == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)


def test_mono_is_the_mean_of_the_channels() -> None:
    left, right = tone(), tone(hertz=1000)
    decoded = audio.decode(written(np.stack([left, right], 1), RATE, "WAV", "FLOAT"), "a.wav", RATE)
    np.testing.assert_allclose(decoded, (left.astype(np.float64) + right) / 2, rtol=0, atol=2**-24)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_keeps_the_tone(rate: int) -> None:
    decoded = audio.decode(written(tone(rate), rate, "WAV", "FLOAT"), "a.wav", RATE)
    assert len(decoded) == RATE
    np.testing.assert_allclose(decoded[400:-400], tone()[400:-400], rtol=0, atol=1e-4)


def test_resampling_lets_no_alias_through() -> None:
    decoded = audio.decode(written(tone(48_000, hertz=11_000), 48_000, "WAV", "FLOAT"), "a.wav", RATE)
    assert np.abs(decoded[400:-400]).max() < 0.5e-4  # 80 dB below the tone


def test_a_wav_that_was_streamed_has_no_size_and_is_read_to_its_end() -> None:
    data = bytearray(written(tone(), RATE, "WAV", "PCM_16"))
    data[40:44] = b"\xff" * 4
    assert len(audio.decode(bytes(data), "a.wav", RATE)) == RATE


def test_chunks_before_the_samples_do_not_look_truncated() -> None:
    data = written(tone(), RATE, "WAV", "PCM_16")
    extra = b"LIST" + (5).to_bytes(4, "little") + b"abcde\0"  # an odd chunk is padded
    assert len(audio.decode(data[:36] + extra + data[36:], "a.wav", RATE)) == RATE


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(("kind", "suffix"), [("WAV", ".wav"), ("FLAC", ".flac"), ("OGG", ".ogg"), ("MP3", ".mp3")])
def test_truncation_is_seen_wherever_it_happens(kind: str, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    data = written(noise, RATE, kind)
    with pytest.raises(audio.BadAudio) as caught:
        audio.decode(data[: int(kept * len(data))], f"a{suffix}", RATE)
    assert caught.value.kind == "truncated"


def test_an_ogg_file_cut_between_two_pages_is_truncated() -> None:
    data = written(np.tile(tone(), 5), RATE, "OGG")
    with pytest.raises(audio.BadAudio, match="truncated"):
        audio.decode(data[: data.rfind(b"OggS")], "a.ogg", RATE)


def test_a_truncated_mp4_is_refused() -> None:
    data = written_by_ffmpeg(tone(), RATE, "mp4", "aac")
    with pytest.raises(audio.BadAudio) as caught:
        audio.decode(data[: len(data) // 2], "a.m4a", RATE)
    assert caught.value.kind in ("truncated", "unreadable")


def test_content_without_a_suffix_is_recognised() -> None:
    assert len(audio.decode(written(tone(), RATE, "FLAC"), "", RATE)) == RATE


def test_random_bytes_never_crash() -> None:
    rng = np.random.default_rng(1)
    whole = {kind: written(tone(), RATE, kind) for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF")}
    for kind, data in whole.items():
        for _ in range(30):
            damaged = np.frombuffer(data, np.uint8).copy()
            damaged[rng.integers(0, min(len(damaged), 300), 5)] = rng.integers(0, 256, 5)
            try:
                decoded = audio.decode(damaged.tobytes(), f"a.{kind.lower()}", RATE)
            except audio.BadAudio:
                continue
            assert np.isfinite(decoded).all()


@pytest.mark.parametrize(
    "parts, said",
    [
        ([(RATE, 1), (RATE, 2)], "number of channels 1 to 2"),
        ([(RATE, 2), (RATE, 1)], "number of channels 2 to 1"),
        ([(RATE, 1), (8_000, 1)], "sample rate 16000 to 8000"),
    ],
)
def test_a_stream_that_changes_in_the_middle_is_refused(parts: list[tuple[int, int]], said: str) -> None:
    data = b"".join(written_by_ffmpeg(tone(rate), rate, "adts", "aac", channels) for rate, channels in parts)
    with pytest.raises(audio.BadAudio, match=f"it changes in the middle: {said}"):
        audio.decode(data, "a.aac", RATE)


def test_what_is_no_audio_file_is_refused_without_a_format() -> None:
    with pytest.raises(audio.BadAudio, match="begins with bytes 00 01, expected an audio file"):
        audio.decode(b"\0\1", "recording", RATE)
    with pytest.raises(audio.BadAudio, match="found ndarray, expected the bytes of a file"):
        audio.decode(tone(), "a.wav", RATE)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_a_wav_with_an_unfinished_length_is_read_to_its_end(size: int) -> None:
    whole = written(tone(), RATE, "WAV", "PCM_16")
    at = whole.index(b"data") + 4
    data = whole[:4] + size.to_bytes(4, "little") + whole[8:at] + size.to_bytes(4, "little") + whole[at + 4 :]
    np.testing.assert_array_equal(audio.decode(data, "a.wav", RATE), audio.decode(whole, "a.wav", RATE))


def test_a_wav_without_samples_is_empty_whatever_chunks_follow() -> None:
    data = written(np.zeros(0, np.float32), RATE, "WAV", "PCM_16") + b"LIST\4\0\0\0INFO"
    with pytest.raises(audio.BadAudio, match="0 samples"):
        audio.decode(data, "a.wav", RATE)


@pytest.mark.parametrize("kind, suffix", [("WAV", ".wav"), ("FLAC", ".flac"), ("MP3", ".mp3")])
def test_channels_in_opposite_phase_are_refused(kind: str, suffix: str) -> None:
    data = written(np.stack([tone(), -tone()], 1), RATE, kind)
    with pytest.raises(audio.BadAudio, match="cancelled: the 2 channels are in opposite phase"):
        audio.decode(data, f"a{suffix}", RATE)
    audio.decode(written(np.stack([tone(), -0.9 * tone()], 1), RATE, kind), f"a{suffix}", RATE)
