"""Why a file cannot be decoded: what it seems to be, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TypeVar

from PIL import UnidentifiedImageError, features

from backend.errors import ImageError, ImageReason
from backend.images import bmp, tiff
from backend.images.heic import is_avif, is_heic
from backend.images.jpeg import unreadable as unreadable_jpeg
from backend.messages.message import Message

T = TypeVar("T")

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
    b"%PDF": Message("a PDF document"),
    b"PK\x03\x04": Message("a ZIP archive"),
    b"\x1f\x8b": Message("a gzip archive"),
    b"8BPS": Message("a Photoshop file"),
    b"\x00\x00\x01\x00": Message("a Windows icon"),
    b"\x00\x00\x00\x0cjP  ": Message("a JPEG 2000 image"),
    b"\xff\x0a": Message("a JPEG XL image"),
    b"\x00\x00\x00\x0cJXL ": Message("a JPEG XL image"),
    b"version https://git-lfs": Message("a Git LFS pointer"),
}
_TEXT_MARKS = {
    b"<svg": Message("an SVG drawing"),
    b"<html": Message("an HTML page"),
    b"<!doctype html": Message("an HTML page"),
}
_UNREADABLE = {"TIFF": tiff.unreadable, "JPEG": unreadable_jpeg, "BMP": bmp.unreadable}


def too_many_pixels(size: tuple[int, int], max_pixels: int) -> ImageError:
    """An image's header declares more pixels than are decoded."""
    return ImageError(
        ImageReason.TOO_MANY_PIXELS,
        Message(
            "The image is too large to decode. Its header says {width} x {height} pixels; the "
            "limit is {max_pixels}.",
            width=size[0],
            height=size[1],
            max_pixels=max_pixels,
        ),
        Message(
            "Scale the image down, or raise LS_CLIP_MAX_IMAGE_PIXELS if its source is trusted."
        ),
    )


def explained(data: bytes, error: Exception) -> ImageError:
    """The error that tells why a file cannot be decoded, from what its decoder raised."""
    readable = readable_format(data)
    if not data:
        return ImageError(
            ImageReason.TRUNCATED,
            Message("The image is empty (0 bytes)."),
            Message("Replace it with a complete copy."),
        )
    if readable is None:
        return ImageError(
            ImageReason.UNSUPPORTED_FORMAT,
            Message(
                "This is not an image that can be read: it seems to be {guessed_format}.",
                guessed_format=_guessed_format(data),
            ),
            Message(
                "Use one of {names}. If a web page came instead of the image, its address needs a "
                "login or is wrong.",
                names=", ".join(_READABLE),
            ),
        )
    problem = _UNREADABLE[readable](data) if readable in _UNREADABLE else None
    if problem is not None:
        return ImageError(
            ImageReason.UNSUPPORTED_FORMAT,
            Message(
                "This kind of {readable} file cannot be read: it is {problem}.",
                readable=readable,
                problem=problem,
            ),
            Message("Convert it to an 8-bit RGB image, as PNG or JPEG."),
        )
    # Pillow has no exception class for truncated files, and its words differ by format.
    if (
        isinstance(error, EOFError)
        or "truncated" in str(error).lower()
        or _is_truncated(readable, data)
    ):
        return ImageError(
            ImageReason.TRUNCATED,
            Message(
                "The {readable} file ends too early, after {count} bytes.",
                readable=readable,
                count=len(data),
            ),
            Message("Replace it with a complete copy."),
        )
    return ImageError(
        ImageReason.CORRUPT,
        Message("The {readable} file is damaged.", readable=readable)
        if isinstance(error, UnidentifiedImageError)
        else Message(
            "The {readable} file is damaged ({detail}).",
            readable=readable,
            detail=" ".join(str(error).split())[:1000],
        ),
        Message("Open it in an image editor, save it again and replace it."),
    )


def _by_signature(data: bytes, signatures: Mapping[bytes, T]) -> T | None:
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


def _guessed_format(data: bytes) -> Message:
    known = _by_signature(data, _FOREIGN_SIGNATURES)
    if known is not None:
        return known
    if data[4:8] == b"ftyp":
        return Message("an AVIF image") if is_avif(data) else Message("an MP4 video or the like")
    text = data[:2048].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, name in _TEXT_MARKS.items():
        if mark in text:
            return name
    is_text = text and all(byte >= 0x20 or byte in b"\t\r\n" for byte in text)
    return Message("plain text or JSON") if is_text else Message("an unknown binary format")
