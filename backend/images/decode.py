"""Decoding: untrusted image bytes in, an upright RGB image out.

The format is read from the content, never from a name or a header. The size is read from the
image's own header and checked before any pixel is decoded, and so are the scans of a JPEG. What a
file costs beyond that is bounded by `backend.images.decoder`, which decides where this runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import ExifTags, Image, UnidentifiedImageError, features

from backend.errors import ImageError, ImageReason
from backend.images.headers import (
    MAX_SCANS,
    has_too_many_scans,
    jpeg_bytes,
    jpeg_header,
    pixel_bytes,
    webp_size,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# An MPO file, several JPEGs in one, is opened as its first JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF") + (
    ("AVIF",) if features.check("avif") else ()
)

# Without this Pillow would import its plugins for all formats at the first WebP, TIFF or AVIF file.
for _plugin in ("Bmp", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP"):
    import_module(f"PIL.{_plugin}ImagePlugin")
if "AVIF" in FORMATS:
    import_module("PIL.AvifImagePlugin")

# EXIF orientation -> what makes the image upright.
_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# File signatures. The readable formats are checked first: a file that starts like one of them and
# cannot be opened is damaged rather than of an unsupported format.
_READABLE_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
_FOREIGN_SIGNATURES = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"8BPS": "a Photoshop file",
    b"\x00\x00\x01\x00": "a Windows icon",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x0a": "a JPEG XL image",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL image",
    b"version https://git-lfs": "a Git LFS pointer",
}

_FTYP_BRANDS = {
    b"avif": "an AVIF image",
    b"avis": "an AVIF image",
    b"heic": "a HEIC image",
    b"heix": "a HEIC image",
    b"mif1": "a HEIC image",
}
_TEXT_MARKS = {
    b"<svg": "an SVG drawing",
    b"<html": "an HTML page",
    b"<!doctype html": "an HTML page",
}

_BAND_PIXELS = 1 << 20
"""Conversions that need copies are done on so many pixels at once."""

_KEEPING_FORMATS = {"WEBP", "AVIF"}
"""Pillow's plugins keep what they decoded from for as long as the image lives."""

# Pillow warns about metadata that does not matter here, in other words for each file. Filters are
# process-wide and switching them per call is not thread-safe, so this one is installed once.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Sizes are checked here. Pillow's own check would also warn, at half of the size that it refuses.
Image.MAX_IMAGE_PIXELS = None
MOST_PIXELS = 178_956_970
"""The largest size that Pillow decodes by default; ``max_pixels`` does not raise it."""


def decode(
    data: bytes,
    max_pixels: int,
    draft_size: int | None = None,
    reserve: Callable[[int], None] = lambda size: None,
) -> Image.Image:
    """Decode the first frame of an image.

    Args:
        data: a whole JPEG, MPO, PNG, WebP, GIF, BMP, TIFF or (where Pillow has it) AVIF file.
        max_pixels: the largest width x height that is decoded, at least 1. Pillow's own limit of
            178,956,970 pixels (`MOST_PIXELS`) applies as well.
        draft_size: a JPEG may come out at 1/2, 1/4 or 1/8 of its size as long as its shorter side
            keeps at least this many pixels, which is faster; other formats are not affected.
        reserve: called before any pixel is decoded, with the bytes of memory that are needed at
            most; may raise an ImageError to refuse.

    Returns:
        A new image of mode ``RGB``, at least 1 x 1, turned as its EXIF orientation says.
        Transparent pixels lie over white; 16-bit values are scaled from 0..65535 to 0..255; 32-bit
        grey values are stretched so that the smallest becomes 0 and the largest 255.

    Raises:
        ImageError: its ``reason`` is ``unsupported_format``, ``too_many_pixels``, ``too_costly``,
            ``truncated`` or ``corrupt``, or it comes from ``reserve``.
    """
    try:
        rgb, transpose = _decode(data, min(max_pixels, MOST_PIXELS), draft_size, reserve)
        return rgb.transpose(transpose) if transpose is not None else rgb
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(
            ImageReason.TOO_COSTLY,
            "The image needs more memory to decode than there is, or than its size explains.",
            "Scale the image down, or save it again in an image editor.",
        ) from error
    except Exception as error:  # Broken files make Pillow's plugins raise nearly anything.
        raise _explained(data, error) from error


def _decode(
    data: bytes, max_pixels: int, draft_size: int | None, reserve: Callable[[int], None]
) -> tuple[Image.Image, Image.Transpose | None]:
    """The image, and what makes it upright."""
    _check_pixels(webp_size(data), max_pixels)
    if has_too_many_scans(data):
        raise ImageError(
            ImageReason.TOO_COSTLY,
            f"The JPEG has more than {MAX_SCANS} scans, each of which is another pass over the "
            "image.",
            "Open it in an image editor, save it again and replace it.",
        )
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        _check_pixels(image.size, max_pixels)
        reserve(_needed_bytes(image, data, draft_size))
        if draft_size is not None:
            image.draft(image.mode, (draft_size, draft_size))
        image.load()
        transpose = _TRANSPOSE_BY_ORIENTATION.get(_orientation(image))
        return _to_rgb(image), transpose


def _needed_bytes(image: Image.Image, data: bytes, draft_size: int | None) -> int:
    """An upper bound, from the header of a file that has been opened."""
    header = jpeg_header(data)
    if header is not None:
        return jpeg_bytes(header, draft_size)
    return image.width * image.height * pixel_bytes(image.format) + 2 * len(data)


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            ImageReason.TOO_MANY_PIXELS,
            f"The image is too large to decode. Its header says {width} x {height} pixels; the "
            f"limit is {max_pixels}.",
            "Scale the image down, or raise LS_CLIP_MAX_IMAGE_PIXELS if its source is trusted.",
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Broken EXIF data is common, and the pixels are usable without it.
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _grey_to_rgb(image)
    if not image.has_transparency_data:
        is_lean = image.mode == "RGB" and image.format not in _KEEPING_FORMATS
        return image if is_lean else image.convert("RGB")
    rgb = Image.new("RGB", image.size, "white")
    for box in bands(image.size):
        transparent = image.crop(box).convert("RGBA")
        rgb.paste(transparent, box, mask=transparent)
    return rgb


def bands(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes as wide as an image that cover it from top to bottom, of about a million pixels."""
    width, height = size
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """Scale 16- and 32-bit grey values to 8 bits; Pillow's own conversion clips at 255."""
    import numpy as np

    if image.mode.startswith("I;16"):
        table = _table_of_16_bits()

        def scaled(band: Image.Image) -> NDArray[np.uint8]:
            narrow: NDArray[np.uint8] = table[np.asarray(band)]
            return narrow

    else:
        low, high = _value_range(image)
        factor = 255.0 / ((high - low) or 1.0)

        def scaled(band: Image.Image) -> NDArray[np.uint8]:
            return np.rint((_finite(band) - low) * factor).astype(np.uint8)

    rgb = Image.new("RGB", image.size)
    for box in bands(image.size):
        rgb.paste(Image.fromarray(scaled(image.crop(box))).convert("RGB"), box)
    return rgb


@cache
def _table_of_16_bits() -> NDArray[np.uint8]:
    import numpy as np

    return np.rint(np.arange(65536) / 257).astype(np.uint8)


def _value_range(image: Image.Image) -> tuple[float, float]:
    """The smallest and the largest value of a 32-bit grey image."""
    ranges = []
    for box in bands(image.size):
        values = _finite(image.crop(box))
        ranges.append((float(values.min()), float(values.max())))
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _finite(band: Image.Image) -> NDArray[np.float64]:
    import numpy as np

    return np.nan_to_num(np.asarray(band, dtype=np.float64), posinf=0.0, neginf=0.0)


def _explained(data: bytes, error: Exception) -> ImageError:
    readable = _readable_format(data)
    if not data:
        return ImageError(
            ImageReason.TRUNCATED, "The image is empty (0 bytes).", "Upload it again."
        )
    if readable is None:
        return ImageError(
            ImageReason.UNSUPPORTED_FORMAT,
            f"This is not an image that can be read: it seems to be {_guessed_format(data)}.",
            f"Use one of {', '.join(FORMATS)}. If a web page came instead of the image, its "
            "address needs a login or is wrong.",
        )
    # Pillow has no exception class for truncated files, and its words differ by format.
    if (
        isinstance(error, EOFError)
        or "truncated" in str(error).lower()
        or _is_truncated(readable, data)
    ):
        return ImageError(
            ImageReason.TRUNCATED,
            f"The {readable} file ends too early, after {len(data)} bytes.",
            "Replace it with a complete copy.",
        )
    detail = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
    return ImageError(
        ImageReason.CORRUPT,
        f"The {readable} file is damaged{detail}.",
        "Open it in an image editor, save it again and replace it.",
    )


def _by_signature(data: bytes, signatures: Mapping[bytes, str]) -> str | None:
    return next((name for start, name in signatures.items() if data.startswith(start)), None)


def _readable_format(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in {b"avif", b"avis"} and "AVIF" in FORMATS:
        return "AVIF"
    return _by_signature(data, _READABLE_SIGNATURES)


def _is_truncated(name: str, data: bytes) -> bool:
    """Whether a damaged file lacks its end, as far as its format reveals that."""
    if name == "JPEG":
        return b"\xff\xd9" not in data[-1024:]
    if name == "PNG":
        return b"IEND" not in data[-1024:]
    if name == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if name == "TIFF":
        order = "little" if data[:2] == b"II" else "big"
        return int.from_bytes(data[4:8], order) + 2 > len(data)  # type: ignore[arg-type]
    if name == "AVIF":
        end = 0
        while (size := int.from_bytes(data[end : end + 4], "big")) >= 8:
            end += size
        return end > len(data)
    return False


def _guessed_format(data: bytes) -> str:
    known = _by_signature(data, _FOREIGN_SIGNATURES)
    if known is not None:
        return known
    if data[4:8] == b"ftyp":
        return _FTYP_BRANDS.get(data[8:12], "an MP4 video or the like")
    text = data[:2048].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, name in _TEXT_MARKS.items():
        if mark in text:
            return name
    is_text = text and all(byte >= 0x20 or byte in b"\t\r\n" for byte in text)
    return "plain text or JSON" if is_text else "an unknown binary format"
