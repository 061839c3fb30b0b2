"""Excerpts of recordings and thumbnails of images."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from toolkit.data.media.excerpt import excerpt, thumbnail


@pytest.mark.parametrize("rate, expected", [(8000, 8000), (16000, 16000), (48000, 16000)])
def test_an_excerpt_is_the_first_seconds_at_a_moderate_rate(rate, expected):
    waveform = 2 * np.sin(2 * np.pi * 440 * np.arange(8 * rate) / rate).astype(np.float32)
    samples, found = soundfile.read(io.BytesIO(excerpt(waveform, rate)))
    assert (found, len(samples)) == (expected, 5 * expected)
    assert 0.99 < np.abs(samples).max() <= 1 and len(excerpt(waveform[:100], rate)) < 10_000


@pytest.mark.parametrize("shape, size, mode", [((16, 8, 3), (8, 16), "RGB"), ((512, 256, 1), (64, 128), "L")])
def test_a_thumbnail_is_an_image_of_at_most_128_pixels(shape, size, mode):
    with Image.open(io.BytesIO(thumbnail(np.full(shape, 7, np.uint8)))) as image:
        assert (image.format, image.size, image.mode, image.getpixel((1, 1))) == (
            "PNG", size, mode, (7, 7, 7) if mode == "RGB" else 7,
        )  # fmt: skip
