"""Small files of recordings and images, to hear and see on a page."""

from __future__ import annotations

import io

import numpy as np

SECONDS = 5.0  # longest excerpt
RATE = 16_000  # highest sample rate of an excerpt, in Hz
PIXELS = 128  # longest side of a thumbnail


def excerpt(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Return the start of a recording as a FLAC file.

    Args:
        waveform: ``(samples,)`` float32, full scale 1.0.
        sample_rate: in Hz.
    """
    import soundfile
    import soxr

    samples = np.clip(waveform[: round(SECONDS * sample_rate)], -1, 1)
    if sample_rate > RATE:
        samples, sample_rate = np.clip(soxr.resample(samples, sample_rate, RATE), -1, 1), RATE
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def thumbnail(pixels: np.ndarray) -> bytes:
    """Return an image as a PNG file, made smaller if it is large.

    Args:
        pixels: ``(height, width, channels)`` uint8, with 1 or 3 channels.
    """
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((PIXELS, PIXELS))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
