"""Files that lack their end, or are damaged somewhere: what is left of their image.

A browser shows what is there of a JPEG, PNG, GIF or BMP, and so is it embedded if nearly all of it
is there. Pillow has a switch for that, but for the whole process and without saying how much it
has decoded.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from PIL import Image, ImageFile

from backend.images.encoded import EncodedImage
from backend.images.headers import has_whole_picture, jpeg_header

MOST_MISSING = 0.1
"""The share of rows that may be missing. What labels are given for is then nearly always there."""

_FORMATS = {"JPEG", "MPO", "PNG", "GIF", "BMP"}
"""Formats that are decoded row by row; browsers show nothing of other files that lack their end."""

_JPEG_END = b"\xff\xd9"
# Bits of ones. libjpeg looks a few bytes ahead, and needs these to finish what is there.
_JPEG_AHEAD = b"\xff\0" * 8
_MARK_BYTES = 8
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"ANMF"}


class TooLittleError(Exception):
    """Too little of an image can be decoded."""


@dataclass(frozen=True)
class MissingRows:
    """Rows of an image that its file does not have.

    Attributes:
        rows: their numbers, from the top, before the image is turned.
        interlaced: whether the rows above stand for them, as in a browser; others are white.
    """

    rows: frozenset[int] = frozenset()
    interlaced: bool = False

    def fill(self, image: Image.Image) -> None:
        """Draw the missing rows of an RGB image."""
        for row in sorted(self.rows):
            box = (0, row, image.width, row + 1)
            if self.interlaced and row > 0 and row - 1 not in self.rows:
                image.paste(image.crop((0, row - 1, image.width, row)), box)
            else:
                image.paste("white", box)


def for_another_try(encoded: EncodedImage, name: str | None, start: int) -> EncodedImage | None:
    """The file as it may be decoded in part; None where no more than a refusal is left.

    Args:
        encoded: the file.
        name: its format.
        start: where its pixels begin.
    """
    if name not in _FORMATS:
        return None
    data = encoded.data
    if name == "GIF":
        return replace(encoded, data=_with_short_block(data, start))
    header = jpeg_header(data) if name in {"JPEG", "MPO"} else None
    if header is None:
        return encoded
    if not header.coefficients:
        return replace(encoded, data=data + _JPEG_AHEAD)
    # All scans are decoded together. The picture is whole, though less sharp, without the last.
    return replace(encoded, data=data + _JPEG_END) if has_whole_picture(data, header) else None


def _with_short_block(data: bytes, place: int) -> bytes:
    """A GIF whose last block of pixels is as long as what is there of it."""
    while place < len(data) and data[place]:
        end = place + 1 + data[place]
        if end > len(data):
            return data[:place] + bytes([len(data) - place - 1]) + data[place + 1 :]
        place = end
    return data


def load_all(image: ImageFile.ImageFile) -> MissingRows:
    """Load an image of which nothing is missing."""
    image.load()
    return MissingRows()


def load_part(image: ImageFile.ImageFile) -> MissingRows:
    """Load what can be decoded.

    All rows get a mark first that no image has; those that keep its end are missing. (Of a GIF,
    a row may have been decoded in part.)

    Raises:
        TooLittleError: more than a tenth is missing.
    """
    if len(image.tile) != 1 or image.tile[0][1] is None:
        raise TooLittleError
    left, top, right, bottom = image.tile[0][1]
    arguments = image.tile[0][3]
    interlaced = bool(image.info.get("interlace"))
    if image.format == "GIF" and isinstance(arguments, tuple):
        interlaced = bool(arguments[1])
    marks: list[bytes] = []
    prepare = image.load_prepare

    def prepare_with_marks() -> None:
        prepare()
        mode, size = image.im.mode, (right - left, 1)
        chance = random.Random(0).randbytes(8 * size[0])
        length = len(Image.new(mode, size).tobytes())
        mark = Image.frombytes(mode, size, chance[:length])
        marks.append(mark.tobytes())
        for row in range(top, bottom):
            image.im.paste(mark.im, (left, row, right, row + 1))

    image.load_prepare = prepare_with_marks  # type: ignore[method-assign]
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:  # Whatever it is, the rows before it have been decoded.
        # From here on Pillow takes the image for loaded.
        image.tile = []
    finally:
        # A circle of references would keep the image's memory.
        del image.load_prepare
    if not marks:
        raise TooLittleError
    rows = {
        row
        for row in range(top, bottom)
        if image.crop((left, row, right, row + 1)).tobytes().endswith(marks[0][-_MARK_BYTES:])
    }
    if len(rows) > MOST_MISSING * (bottom - top):
        raise TooLittleError
    return MissingRows(frozenset(rows), interlaced)


def whole_webp(data: bytes) -> bytes:
    """A WebP file without a piece of metadata that is cut, as long as its pixels are all there."""
    if int.from_bytes(data[4:8], "little") + 8 <= len(data):
        return data
    place, pixels = 12, False
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        if place + 8 + length > len(data):
            break
        pixels = pixels or data[place : place + 4] in _WEBP_PIXELS
        place += 8 + length + length % 2
    if not pixels:
        return data
    body = data[8:place].ljust(place - 8, b"\0")
    return b"RIFF" + len(body).to_bytes(4, "little") + body
