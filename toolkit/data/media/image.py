"""Decoding of image files to pixels: upright, cropped, resized, and grey or colour; the same for both frameworks.

Pillow decodes PNG, JPEG, GIF, BMP, TIFF, WebP, PNM and, from version 11.3, AVIF; with the package pillow-heif HEIC too.
The content decides, not the file's suffix. The steps, in this order:

- Take the first frame of an animation, or the first page.
- Apply the EXIF orientation.
- Composite transparency (alpha, or a transparent colour of a palette) over white.
- Convert 16-bit grey to 8-bit by value / 257, rounded; convert CMYK, palettes and other colour spaces to RGB.
- With ``channels``, convert colour to grey by the luma of ITU-R BT.601, or grey to colour as three equal channels.
- With ``size``, crop the central square and resize it by a triangle filter over its whole area (Pillow's antialiased
  bilinear). A large JPEG is decoded at the smallest of 1/2, 1/4, 1/8 of its size that is at least twice ``size``.

Colour profiles are not applied. Damage that a JPEG decoder conceals is not detected.
"""

from __future__ import annotations

import functools
import importlib.util
import io
from pathlib import PurePath
from typing import Any

import numpy as np

from toolkit.data.cache import Partial, Undecodable

# Part of the cache key: increment it when the same file would be decoded to other pixels than before.
VERSION = 2

_SUFFIXES = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
}
# Major brands of images in the ISO base media file format (ISO/IEC 14496-12, 23008-12)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"}
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF")
_REMEDIES = {
    "AVIF": "an AVIF image, which Pillow {version} does not read: pip install 'pillow>=11.3', or convert it to PNG",
    "HEIF": "a HEIC image, which Pillow reads only with pillow-heif: pip install pillow-heif, or convert it to PNG",
}
FORMATS = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}

_GREY = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")
# EXIF orientation (tag 0x0112) -> name in PIL.Image.Transpose of the transform that turns the image upright
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class BadImage(Undecodable):
    """Error of an image that cannot be used."""


def decode(
    content: bytes | np.ndarray, name: str, size: int | None, channels: int | None, max_pixels: int
) -> np.ndarray | Partial:
    """Decode one image.

    Args:
        content: the whole file, or pixels, ``(height, width)`` or ``(height, width, channels)`` uint8.
        name: its file name, for messages.
        size: height and width of the result; None: those of the image.
        channels: 1 grey, 3 colour; None: those of the image.
        max_pixels: height x width above which an image is refused undecoded.

    Returns:
        ``(height, width, channels)`` uint8; as a :class:`Partial` if the image has several frames.

    Raises:
        BadImage: empty, not an image, truncated, damaged, too large, or with pixels of unknown scale.
    """
    if isinstance(content, np.ndarray):
        pixels = content.reshape(*content.shape[:2], -1)
        if (size is None or pixels.shape[:2] == (size, size)) and channels in (None, pixels.shape[2]):
            return np.ascontiguousarray(pixels)
        return _to_array(_pillow().fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), size, channels)
    if not content:
        raise BadImage("empty", "the file has 0 bytes")
    image = _open(content, name, max_pixels)
    try:
        # A camera's MPO is a JPEG followed by previews.
        frames = image.format != "MPO" and getattr(image, "is_animated", False)
        if size:
            image.draft(None, (2 * size, 2 * size))
        image.load()
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
        array = _to_array(image.transpose(_pillow().Transpose[turn]) if turn else image, size, channels)
        return Partial(array) if frames else array
    except BadImage:
        raise
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise nearly any error in the decoders
        raise _damage(f"a {image.format} file that cannot be decoded", error) from None


@functools.cache
def _pillow() -> Any:
    import warnings

    from PIL import Image

    Image.init()
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    # Pillow's bounds on pixels are above ours, and its warning would be printed beside our message.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


def _open(data: bytes, name: str, max_pixels: int) -> Any:
    """Open an image without decoding its pixels."""
    library = _pillow()
    if data[:4] == b"RIFF" and len(data) < (declared := 8 + int.from_bytes(data[4:8], "little")):
        raise BadImage("truncated", f"the header promises {declared:,} bytes, the file has {len(data):,}")
    try:
        image = library.open(io.BytesIO(data), formats=[name for name in _SUFFIXES if name in library.OPEN])
        width, height = image.size
    except library.DecompressionBombError:
        raise BadImage("too large", f"the header promises more than {2 * library.MAX_IMAGE_PIXELS:,} pixels") from None
    except library.UnidentifiedImageError:
        raise _without_decoder(data) or _not_an_image(data, name) from None
    except Exception as error:
        raise _damage("its header cannot be read", error) from None
    if width * height > max_pixels:
        message = f"{width} x {height} pixels, expected at most {max_pixels:,} of them (dataset.max_pixels)"
        raise BadImage("too large", message)
    return image


def _without_decoder(data: bytes) -> BadImage | None:
    """Return the problem with an AVIF or HEIC image that this Pillow does not read; None for other files."""
    from PIL import __version__, features

    kind = _BRANDS.get(data[8:12]) if data[4:8] == b"ftyp" else None
    if kind is None:
        return None
    if kind in _pillow().OPEN and (kind != "AVIF" or features.check("avif")):  # unknown to Pillows without AVIF
        return None
    return BadImage("no decoder", _REMEDIES[kind].format(version=__version__), passing=True)


def _not_an_image(data: bytes, name: str) -> BadImage:
    suffix = PurePath(name).suffix.lower()
    expected = FORMATS.get(suffix, "an image")
    if all(byte in b"\t\n\r" or byte >= 32 for byte in data[:512]) and _is_utf8(data[:512]):
        return BadImage("mislabelled", f"named {suffix or 'without suffix'} but holds text, expected {expected}")
    return BadImage("not an image", f"begins with bytes {data[:4].hex(' ')}, expected {expected}")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start > len(data) - 4  # truncated in the middle of a character
    return True


def _damage(what: str, error: Exception) -> BadImage:
    reason = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    return BadImage("truncated" if "truncated" in reason.lower() else "damaged", f"{what}: {reason}")


def _to_array(image: Any, size: int | None, channels: int | None) -> np.ndarray:
    image = _to_grey_or_rgb(image)
    count = channels or (1 if image.mode == "L" else 3)
    image = image.convert("L" if count == 1 else "RGB")
    if size and image.size != (size, size):
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        image = square.resize((size, size), _pillow().Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, count)


def _to_grey_or_rgb(image: Any) -> Any:
    """Convert an image to mode L or RGB."""
    library = _pillow()
    grey = image.mode in _GREY
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        values = np.asarray(image).astype(np.uint32)
        return library.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImage("unknown scale", f"pixels of 32 bits (mode {image.mode}), expected 8 or 16: save it with 8 bits")
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        image = library.new("RGBA", foreground.size, "white")
        image.alpha_composite(foreground)
    return image.convert("L" if grey else "RGB")
