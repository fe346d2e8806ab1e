"""How an image has to be turned, as browsers take it: by EXIF data, never by XMP.

Browsers read the orientation of a JPEG's first EXIF segment before its pixels, and of the first
EXIF chunk before a PNG's pixels. They ignore the EXIF data of WebP files.
"""

from __future__ import annotations

from typing import Literal

from PIL import ExifTags, Image

TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the image upright."""

_TAG, _SHORT = 0x0112, 3


def exif_orientation(exif: bytes) -> int:
    """The orientation in EXIF data, 1 to 8; 1 where it has none or is broken."""
    if exif[:4] not in {b"II*\0", b"MM\0*"}:
        return 1
    order: Literal["little", "big"] = "little" if exif[:2] == b"II" else "big"
    place = int.from_bytes(exif[4:8], order)
    count = int.from_bytes(exif[place : place + 2], order)
    # A directory may claim more entries than there are.
    for start in range(place + 2, min(place + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind = (int.from_bytes(exif[at : at + 2], order) for at in (start, start + 2))
        if tag == _TAG:
            values = int.from_bytes(exif[start + 4 : start + 8], order)
            value = int.from_bytes(exif[start + 8 : start + 10], order)
            is_usual = kind == _SHORT and values == 1 and 1 <= value <= 8
            return value if is_usual else 1
    return 1


def left_to_turn(image: Image.Image) -> int:
    """The orientation of a decoded image that Pillow knows how to turn; 1 where it is broken."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Broken EXIF data is common, and the pixels are usable without it.
        return 1
    return value if isinstance(value, int) else 1
