"""Why a file cannot be decoded: what it seems to be, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from PIL import UnidentifiedImageError, features

from backend.errors import ImageError, ImageReason
from backend.images import bmp, tiff
from backend.images.heic import is_avif, is_heic
from backend.images.jpeg import unreadable as unreadable_jpeg

# An MPO file, several JPEGs in one, is opened as its first JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF") + (
    ("AVIF",) if features.check("avif") else ()
)
"""What Pillow opens here."""
_READABLE = FORMATS + (("HEIC",) if find_spec("pillow_heif") else ())

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
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
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
_TEXT_MARKS = {
    b"<svg": "an SVG drawing",
    b"<html": "an HTML page",
    b"<!doctype html": "an HTML page",
}
_UNREADABLE = {"TIFF": tiff.unreadable, "JPEG": unreadable_jpeg, "BMP": bmp.unreadable}


def too_many_pixels(size: tuple[int, int], max_pixels: int) -> ImageError:
    """An image's header declares more pixels than are decoded."""
    return ImageError(
        ImageReason.TOO_MANY_PIXELS,
        f"The image is too large to decode. Its header says {size[0]} x {size[1]} pixels; the "
        f"limit is {max_pixels}.",
        "Scale the image down, or raise LS_CLIP_MAX_IMAGE_PIXELS if its source is trusted.",
    )


def explained(data: bytes, error: Exception) -> ImageError:
    """The error that tells why a file cannot be decoded, from what its decoder raised."""
    readable = readable_format(data)
    if not data:
        return ImageError(
            ImageReason.TRUNCATED, "The image is empty (0 bytes).", "Upload it again."
        )
    if readable is None:
        return ImageError(
            ImageReason.UNSUPPORTED_FORMAT,
            f"This is not an image that can be read: it seems to be {_guessed_format(data)}.",
            f"Use one of {', '.join(_READABLE)}. If a web page came instead of the image, its "
            "address needs a login or is wrong.",
        )
    problem = _UNREADABLE[readable](data) if readable in _UNREADABLE else None
    if problem is not None:
        return ImageError(
            ImageReason.UNSUPPORTED_FORMAT,
            f"This kind of {readable} file cannot be read: it is {problem}.",
            "Convert it to an 8-bit RGB image, as PNG or JPEG.",
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
    detail = (
        "" if isinstance(error, UnidentifiedImageError) else f" ({' '.join(str(error).split())})"
    )
    return ImageError(
        ImageReason.CORRUPT,
        f"The {readable} file is damaged{detail}.",
        "Open it in an image editor, save it again and replace it.",
    )


def _by_signature(data: bytes, signatures: Mapping[bytes, str]) -> str | None:
    return next((name for start, name in signatures.items() if data.startswith(start)), None)


def readable_format(data: bytes) -> str | None:
    """The format that a file's first bytes name, of those that can be read; None for others."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if is_avif(data) and "AVIF" in FORMATS:
        return "AVIF"
    if is_heic(data):
        return "HEIC"
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
        is_big = 43 in data[2:4]
        place = data[8:16] if is_big else data[4:8]
        order = "little" if data[:2] == b"II" else "big"
        return int.from_bytes(place, order) + 2 > len(data)  # type: ignore[arg-type]
    if name in {"AVIF", "HEIC"}:
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
        return "an AVIF image" if is_avif(data) else "an MP4 video or the like"
    text = data[:2048].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, name in _TEXT_MARKS.items():
        if mark in text:
            return name
    is_text = text and all(byte >= 0x20 or byte in b"\t\r\n" for byte in text)
    return "plain text or JSON" if is_text else "an unknown binary format"
