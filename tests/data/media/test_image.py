"""Image files of all kinds give the pixels that were written into them."""

from __future__ import annotations

import io
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from tests.support.bad_pictures import encoded, pixels
from toolkit.data.cache import Partial
from toolkit.data.media import image


def decode(content: Any, name: str = "a.png", size: int | None = None, channels: int | None = None) -> np.ndarray:
    array = image.decode(content, name, size, channels, 1_000_000)
    assert isinstance(array, np.ndarray)
    return array


COLOUR = pixels(1, 9, 14)
GREY = COLOUR[..., 0]


@pytest.mark.parametrize(
    "kind, options",
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("WEBP", {"lossless": True}), ("GIF", {})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lossless_formats_give_their_pixels(kind: str, options: dict[str, Any]) -> None:
    few = COLOUR // 128 * 255  # GIF has a palette
    found = decode(encoded(few, kind, **options), "a")
    np.testing.assert_array_equal(found, few)
    assert found.dtype == np.uint8 and found.flags.c_contiguous


def test_grey_stays_grey_and_converts() -> None:
    np.testing.assert_array_equal(decode(encoded(GREY)), GREY[..., None])
    np.testing.assert_array_equal(decode(encoded(GREY), channels=3), np.repeat(GREY[..., None], 3, 2))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert abs(decode(encoded(COLOUR), channels=1)[..., 0] - luma).max() < 1
    bits = Image.fromarray((GREY > 127).astype(np.uint8) * 255).convert("1")
    np.testing.assert_array_equal(decode(encoded(bits))[..., 0], (GREY > 127) * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(kind: str) -> None:
    deep = (GREY.astype(np.uint32) * 257 + 100).clip(max=65535).astype(np.uint16)  # off by less than half a step
    np.testing.assert_array_equal(decode(encoded(deep, kind))[..., 0], GREY)


def test_palette_and_alpha_are_laid_over_white() -> None:
    palette = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "P")
    colours = [(9, 9, 9), (50, 0, 0), (0, 60, 0), (0, 0, 70), (80, 80, 0), (1, 2, 3)]
    palette.putpalette([value for colour in colours for value in colour])
    np.testing.assert_array_equal(decode(encoded(palette)).reshape(6, 3), colours)
    seen = decode(encoded(palette, transparency=4)).reshape(6, 3)
    np.testing.assert_array_equal(seen, [*colours[:4], (255, 255, 255), colours[5]])

    alpha = np.dstack([COLOUR, np.full(GREY.shape, 255, np.uint8)])
    alpha[0, 0, 3], alpha[0, 1, 3] = 0, 128
    seen = decode(encoded(alpha)).astype(int)
    np.testing.assert_array_equal(seen[1:], COLOUR[1:])
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert abs(seen[0, 1] - (COLOUR[0, 1].astype(int) * 128 + 255 * 127) / 255).max() <= 1
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha[..., 3].copy())])
    assert decode(encoded(grey)).shape == (9, 14, 1) and decode(encoded(grey))[0, 0] == 255


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    flat = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    found = decode(encoded(Image.fromarray(flat).convert("CMYK"), kind), "a.jpg")
    assert found.shape == (16, 16, 3) and abs(found.astype(int) - flat).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    # https://www.cipa.jp, Exif 2.32, tag 0x0112: where the 0th row and the 0th column of the file are seen
    upright = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: COLOUR.transpose(1, 0, 2)[:, ::-1],
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: COLOUR.transpose(1, 0, 2)[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(COLOUR, "PNG", exif=exif)), upright[orientation])


def test_the_middle_square_is_resized() -> None:
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:10], wide[:, 10:14] = (100, 0, 0), (0, 200, 0)  # the middle 8 columns
    found = decode(encoded(wide), size=4)
    assert found.shape == (4, 4, 3)
    assert found[0, 0].tolist() == [100, 0, 0] and found[3, 3].tolist() == [0, 200, 0]
    assert decode(encoded(wide), size=16).shape == (16, 16, 3)
    same = pixels(3)
    np.testing.assert_array_equal(decode(encoded(same), size=len(same)), same)
    large = np.asarray(Image.fromarray(pixels(4, 6, 6)).resize((512, 512), Image.Resampling.BICUBIC))
    jpeg = decode(encoded(large, "JPEG", quality=95), "a.jpg", size=16).astype(int)
    assert abs(jpeg - decode(encoded(large), size=16)).mean() < 3


def test_raw_pixels_go_through_the_same_conversions() -> None:
    np.testing.assert_array_equal(decode(GREY), GREY[..., None])
    np.testing.assert_array_equal(decode(COLOUR), COLOUR)
    for raw in (GREY, GREY[..., None], COLOUR):
        for size, channels in ((5, None), (None, 1), (None, 3), (5, 3)):
            file = encoded(raw[..., 0] if raw.shape[-1] == 1 else raw)
            np.testing.assert_array_equal(decode(raw, size=size, channels=channels), decode(file, "a", size, channels))


def test_content_decides_and_not_the_suffix() -> None:
    np.testing.assert_array_equal(decode(encoded(COLOUR), "a.jpg"), COLOUR)


def test_a_cameras_previews_are_ignored() -> None:
    both = Image.fromarray(COLOUR)
    file = encoded(both, "MPO", save_all=True, append_images=[both.rotate(90)])
    assert Image.open(io.BytesIO(file)).n_frames == 2 and decode(file, "a.jpg").shape == COLOUR.shape


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_of_several_is_taken(kind: str) -> None:
    few = Image.fromarray(COLOUR // 128 * 255)
    exact = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {}
    found = image.decode(
        encoded(few, kind, save_all=True, append_images=[few.rotate(180)], **exact), "a", None, 3, 1000
    )
    assert isinstance(found, Partial)
    np.testing.assert_allclose(found.array, np.asarray(few), atol=8 if kind == "AVIF" else 0)


def test_avif_is_read_where_pillow_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(COLOUR, "AVIF", quality=100, subsampling="4:4:4")
    assert abs(decode(content).astype(int) - COLOUR).mean() < 4
    monkeypatch.delitem(Image.OPEN, "AVIF")
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(
        image.BadImage, match=r"no decoder: an AVIF image, which Pillow [0-9.]+ does not read: pip install"
    ):
        decode(content)


def test_heic_is_read_by_pillow_heif_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module stands for the package: it opens HEIC as what the test says."""
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    opened = Image.fromarray(COLOUR)

    def register() -> None:
        Image.register_open("HEIF", lambda *_: opened, lambda prefix: prefix[4:12] == b"ftypheic")

    module = ModuleType("pillow_heif")
    module.__spec__ = ModuleSpec("pillow_heif", None)
    module.__dict__["register_heif_opener"] = register
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    image._pillow.cache_clear()
    try:
        np.testing.assert_array_equal(decode(content), COLOUR)
    finally:
        image._pillow.cache_clear()
        Image.OPEN.pop("HEIF")
        Image.ID.remove("HEIF")
