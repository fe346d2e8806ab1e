"""PNG: the few chunks that decide its pixels, without its metadata.

Texts, profiles and times may be large when they are unpacked, or broken, and say nothing about the
pixels. They are skipped by their lengths and never read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from backend.images.encoded import EncodedImage
from backend.images.orientation import exif_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE = 0, 2, 3
_TRANSPARENCY_BYTES = {_GREY: 2, _RGB: 6}
_SCALES = {2: 85, 4: 17}
"""What Pillow multiplies grey values of 2 and 4 bits by; the transparent one is to be alike."""
_MISSING_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_SRGB_GAMMA = (0.44, 0.47)
"""Files with a gamma between are shown as sRGB, whose curve is close to 1 / 2.2."""


class _Chunk(NamedTuple):
    """Where a chunk lies; its ``end`` may be beyond the file's."""

    kind: bytes
    start: int
    end: int

    @property
    def body(self) -> slice:
        return slice(self.start + 8, self.end - 4)


def _chunks(data: bytes, place: int) -> Iterator[_Chunk]:
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        yield _Chunk(data[place + 4 : place + 8], place, end)
        place = end


def _is_sound(data: bytes, chunk: _Chunk) -> bool:
    checksum = data[chunk.end - 4 : chunk.end]
    return checksum == struct.pack(">I", zlib.crc32(data[chunk.start + 4 : chunk.end - 4]))


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def has_few_chunks(data: bytes, most: int) -> bool:
    """Whether no more than ``most`` chunks have to be looked at."""
    kinds: set[bytes] = set()
    for number, chunk in enumerate(_chunks(data, len(SIGNATURE))):
        if number >= most:
            return False
        if b"IDAT" in kinds and chunk.kind != b"IDAT":
            # The first frame of an animation may be anywhere behind the default image.
            return b"acTL" not in kinds or b"fcTL" in kinds
        kinds.add(chunk.kind)
    return True


def encoded_of(data: bytes) -> EncodedImage:
    """A PNG of the deciding chunks alone, the first frame of an animation as its pixels.

    A file whose header is broken comes back as it is.
    """
    head = data[16:29]
    if data[12:16] != b"IHDR" or len(head) < 13:
        return EncodedImage(data)
    first: dict[bytes, _Chunk] = {}
    for chunk in _chunks(data, 33):
        # What has a wrong checksum is as good as missing, but for the palette.
        if chunk.kind in {b"IDAT", b"PLTE"} or (
            chunk.kind in {b"tRNS", b"eXIf", b"gAMA", b"acTL", b"fcTL", b"iCCP", b"sRGB", b"cICP"}
            and chunk.kind not in first
            and _is_sound(data, chunk)
        ):
            first.setdefault(chunk.kind, chunk)
        if chunk.kind in {b"IDAT", b"IEND"}:
            break
    if b"IDAT" not in first:
        return EncodedImage(data)
    orientation = exif_orientation(data[first[b"eXIf"].body]) if b"eXIf" in first else 1
    gamma = None
    if b"gAMA" in first and not first.keys() & {b"iCCP", b"sRGB", b"cICP"}:
        gamma = _gamma(data[first[b"gAMA"].body])
    colours = _colours(data, first, head)
    start = first[b"IDAT"].start
    if b"acTL" in first and b"fcTL" not in first:
        frame = _first_frame(data, start, head)
        if frame is not None:
            place, frame_head, pixels = frame
            parts: tuple[bytes | memoryview, ...]
            parts = (SIGNATURE, _chunk(b"IHDR", frame_head), colours, pixels, _MISSING_END)
            canvas = struct.unpack(">II", head[:8])
            return EncodedImage(data, orientation, gamma, canvas, place, parts)
    parts = (data[:33], colours, *_pixels(data, start), _MISSING_END)
    return EncodedImage(data, orientation, gamma, parts=parts)


def _gamma(body: bytes) -> float | None:
    """What the values have to be raised to; None where they are usual."""
    value = int.from_bytes(body[:4], "big") / 100_000
    low, high = _SRGB_GAMMA
    return None if len(body) != 4 or value <= 0 or low <= value <= high else 1 / value


def _colours(data: bytes, first: dict[bytes, _Chunk], head: bytes) -> bytes:
    """The palette and the transparency."""
    depth, colour = head[8], head[9]
    palette = transparency = b""
    if colour == _PALETTE and b"PLTE" in first:
        chunk = first[b"PLTE"]
        palette, body = data[chunk.start : chunk.end], data[chunk.body]
        missing = (1 << min(depth, 8)) - len(body) // 3
        # Indices beyond a short palette mean its last colour.
        if missing > 0 and body and _is_sound(data, chunk):
            palette = _chunk(b"PLTE", body[: len(body) // 3 * 3] + body[-3:] * missing)
    if b"tRNS" in first:
        body = data[first[b"tRNS"].body]
        if colour == _PALETTE:
            transparency = _chunk(b"tRNS", body)
        elif len(body) == _TRANSPARENCY_BYTES.get(colour):
            values = struct.unpack(f">{len(body) // 2}H", body)
            if colour == _GREY:
                values = tuple(value * _SCALES.get(depth, 1) for value in values)
            elif depth == 16:
                # Pillow keeps the high bytes of 16-bit colours.
                values = tuple(value >> 8 for value in values)
            transparency = _chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))
    return palette + transparency


def _pixels(data: bytes, start: int) -> Iterator[bytes | memoryview]:
    """The chunks of pixels that follow each other; the last one may be cut."""
    end, view = start, memoryview(data)
    for chunk in _chunks(data, start):
        if chunk.kind != b"IDAT":
            break
        if chunk.end > len(data):
            body = view[chunk.start + 8 : chunk.end - 4]
            yield view[start:end]
            # Nobody looks at the checksum of pixels.
            yield struct.pack(">I", len(body)) + b"IDAT"
            yield body
            yield bytes(4)
            return
        end = chunk.end
    yield view[start:end]


def _first_frame(
    data: bytes, start: int, head: bytes
) -> tuple[tuple[int, int], bytes, bytes] | None:
    """Of an animation that leaves its default image out: place, header and pixels."""
    control: bytes | None = None
    pixels: list[bytes] = []
    for chunk in _chunks(data, start):
        if chunk.kind == b"fcTL":
            if pixels or control is not None or not _is_sound(data, chunk):
                break
            control = data[chunk.body]
        elif chunk.kind == b"fdAT" and control is not None:
            pixels.append(_chunk(b"IDAT", data[chunk.start + 12 : chunk.end - 4]))
    if control is None or len(control) != 26 or not pixels:
        return None
    width, height, left, top = struct.unpack(">IIII", control[4:20])
    canvas_width, canvas_height = struct.unpack(">II", head[:8])
    if not (0 < width <= canvas_width - left and 0 < height <= canvas_height - top):
        return None
    return (left, top), control[4:12] + head[8:], b"".join(pixels)
