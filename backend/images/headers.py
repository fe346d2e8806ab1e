"""What the header of an image file tells about the cost of decoding it, without decoding anything.

An ordinary file is one of which the header alone bounds time and memory: a usual structure, few
pixels, little metadata. Everything else is for a decoder process, which can be ended
(`backend.images.decoder`). Nothing here runs longer than one pass over the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from backend.images.png import has_few_chunks

MAX_SCANS = 100
"""A JPEG with more scans is refused: encoders write about ten, and each one costs a pass."""

_ORDINARY_SCANS = 32
_ORDINARY_PIXELS = 50_000_000
_MAX_SEGMENTS = 100
_MAX_CHUNKS = 20_000
_MAX_TAGS = 200
_MAX_METADATA = 1_000_000
"""Bytes of one piece of metadata; EXIF data may make Pillow read as much for each of its tags."""

# Bytes of memory per pixel at most, with the RGB image and what a decoder keeps beside it: WebP two
# canvases and a copy, AVIF the frame before its colours are converted and a copy, TIFF its strips.
_PIXEL_BYTES = {"WEBP": 17, "AVIF": 17, "TIFF": 10}
_OTHER_PIXEL_BYTES = 8

# JPEG markers: SOF0 to SOF2 begin a frame that libjpeg decodes in the usual way.
_USUAL_FRAMES = {0xC0, 0xC1, 0xC2}
_OTHER_FRAMES = {*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _END, _SCAN = 0xC2, 0xD9, 0xDA
_FREQUENCIES = 64
# Neither stuffed zeros nor markers without a length: TEM and restarts.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")

# TIFF: tags, sizes of value types, and compressions whose cost the number of pixels bounds.
_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
_PLANES = 284
_TILE_TAGS = {322, 323, 324, 325}
_SHORT, _LONG = 3, 4
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_PLAIN_COMPRESSIONS = {1, 5, 8, 32773, 32946}


@dataclass(frozen=True)
class JpegHeader:
    """The header of a JPEG, up to its first scan.

    Attributes:
        width: in pixels.
        height: in pixels.
        coefficients: bytes that libjpeg keeps per pixel, 0 if it decodes in one scan.
        usual: whether it is Huffman-coded, and all that comes before the scan is small.
        start: where the first scan begins.
        components: the names of its components, luminance first.
    """

    width: int
    height: int
    coefficients: float
    usual: bool
    start: int
    components: bytes


def ordinary_bytes(data: bytes, draft_size: int | None) -> int | None:
    """The most memory, in bytes, that decoding an ordinary file takes; None for other files.

    Args:
        data: the file.
        draft_size: as for `backend.images.decode.decode`.
    """
    if data[:3] == b"\xff\xd8\xff":
        return _ordinary_jpeg(data, draft_size)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _ordinary_png(data)
    if data[:4] == b"RIFF":
        return _ordinary_webp(data)
    if data[:3] == b"GIF":
        return _ordinary_gif(data)
    if data[:2] == b"BM":
        return _ordinary_bmp(data)
    if data[:4] in {b"II*\0", b"MM\0*"}:
        return _ordinary_tiff(data)
    # Pillow tries whatever begins like a TIFF or an AVIF file, and refuses the rest at once.
    return None if data[:2] in {b"II", b"MM"} or data[4:8] == b"ftyp" else 0


def pixel_bytes(name: str | None) -> int:
    """The most memory per pixel that decoding a format takes; for JPEG see `jpeg_bytes`."""
    return _PIXEL_BYTES.get(name or "", _OTHER_PIXEL_BYTES)


def jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG; None where it is none, or damaged, or has an unusual frame."""
    place, frame, usual = 2, None, True
    metadata = set()
    for _ in range(_MAX_SEGMENTS):
        if data[place : place + 1] != b"\xff":
            return None
        marker = data[place + 1] if place + 1 < len(data) else _END
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if marker == _SCAN:
            return _with_scans(frame, body, usual, place)
        if marker in _USUAL_FRAMES and frame is None and len(body) >= 6:
            frame = (marker, body)
        elif marker in _USUAL_FRAMES | _OTHER_FRAMES | {0xFF, _END} or length < 2:
            return None
        elif marker in {0xE1, 0xE2}:
            for start in (b"Exif\0\0", b"MPF\0"):
                if body.startswith(start):
                    # Pillow joins several pieces of EXIF data.
                    usual = usual and start not in metadata and _has_few_tags(body[len(start) :])
                    metadata.add(start)
        place += 2 + length
    return None


def _with_scans(
    frame: tuple[int, bytes] | None, scan: bytes, usual: bool, place: int
) -> JpegHeader | None:
    if frame is None or not scan:
        return None
    marker, body = frame
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    factors = [(body[i] >> 4, body[i] & 15) for i in range(7, len(body), 3)]
    if not factors or 0 in (width, height) or any(0 in pair for pair in factors):
        return None
    coefficients = 0.0
    if marker == _PROGRESSIVE or scan[0] != body[5]:
        # Two bytes for each sample of each component.
        largest = max(h for h, _ in factors) * max(v for _, v in factors)
        coefficients = 2 * sum(h * v for h, v in factors) / largest
    return JpegHeader(width, height, coefficients, usual, place, body[6::3])


def has_too_many_scans(data: bytes) -> bool:
    """Whether the file is a JPEG with more than `MAX_SCANS` scans."""
    header = jpeg_header(data) if data[:3] == b"\xff\xd8\xff" else None
    return header is not None and _count_scans(data, header) > MAX_SCANS


def has_whole_picture(data: bytes, header: JpegHeader) -> bool:
    """Whether a JPEG of several scans that lacks its end has its whole picture, if not all detail.

    Its luminance has to be complete, at whatever precision, and each of its colours begun.
    """
    scans = [*islice(_scans(data, header), MAX_SCANS + 1)]
    begun: set[int] = set()
    complete: set[int] = set()
    for number, scan in enumerate(scans):
        names = set(scan[1 : 1 + 2 * scan[0] : 2])
        begun |= names
        # The last scan is cut.
        if header.components[0] in names and number + 1 < len(scans):
            complete |= {*range(scan[-3], scan[-2] + 1)}
    return begun >= set(header.components) and len(complete) == _FREQUENCIES


def _count_scans(data: bytes, header: JpegHeader) -> int:
    """The number of scans, counted no further than just past the limit."""
    if not header.coefficients:
        return 1
    return sum(1 for _ in islice(_scans(data, header), MAX_SCANS + 1))


def _scans(data: bytes, header: JpegHeader) -> Iterator[bytes]:
    """The header of each scan, as libjpeg finds them."""
    place = header.start
    while found := _NEXT_MARKER.search(data, place):
        marker = data[found.end() - 1]
        if marker == _END:
            break
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        scan = data[found.end() + 2 : found.end() + length]
        if marker == _SCAN and len(scan) >= 4:
            yield scan
        place = found.end() + max(length, 2)


def _ordinary_jpeg(data: bytes, draft_size: int | None) -> int | None:
    header = jpeg_header(data)
    if header is None:
        return None
    scans = _count_scans(data, header)
    if scans > MAX_SCANS:
        # Refused before anything else is looked at.
        return 0
    is_small = header.width * header.height <= _ORDINARY_PIXELS
    if not header.usual or not is_small or scans > _ORDINARY_SCANS:
        return None
    return jpeg_bytes(header, draft_size)


def jpeg_bytes(header: JpegHeader, draft_size: int | None) -> int:
    """The most memory that decoding a JPEG takes; arguments as above."""
    pixels = header.width * header.height
    reduced = 1
    if draft_size is not None:
        possible = min(header.width, header.height) // draft_size
        reduced = next(factor for factor in (8, 4, 2, 1) if possible >= factor or factor == 1)
    # The image, and another when it is converted or turned.
    return int(pixels * (header.coefficients + 8 / reduced**2))


def _ordinary_png(data: bytes) -> int | None:
    """Only the chunks that decide the pixels are looked at, so only their number costs time."""
    if data[12:16] != b"IHDR" or not has_few_chunks(data, _MAX_CHUNKS):
        return None
    return _OTHER_PIXEL_BYTES * _area(data[16:20], data[20:24], "big")


def _ordinary_webp(data: bytes) -> int | None:
    width, height = webp_size(data)
    place = 12
    for _ in range(_MAX_SEGMENTS):
        if not data[place : place + 4]:
            return pixel_bytes("WEBP") * width * height
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + length + length % 2
    return None


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP file's canvas; 0 x 0 for other files.

    Pillow allocates the canvas as soon as the file is opened.
    """
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return 0, 0
    kind = data[12:16]
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        bits = int.from_bytes(data[26:30], "little")
        return bits & 0x3FFF, bits >> 16 & 0x3FFF
    return 0, 0


def _ordinary_gif(data: bytes) -> int | None:
    """Blocks before the first frame are walked; comments may come in very many."""
    if len(data) < 13:
        return 0
    area = _area(data[6:8], data[8:10], "little")
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    for _ in range(_MAX_SEGMENTS):
        if data[place : place + 1] != b"!":
            # A frame may reach beyond the canvas, which then grows.
            left, top, width, height = (
                int.from_bytes(data[start : start + 2], "little")
                for start in range(place + 1, place + 9, 2)
            )
            return _OTHER_PIXEL_BYTES * max(area, (left + width) * (top + height))
        place += 2
        # Extensions but long comments and XMP have one or two blocks of data.
        for _ in range(2):
            if data[place : place + 1] not in {b"\0", b""}:
                place += 1 + data[place]
        if data[place : place + 1] not in {b"\0", b""}:
            return None
        place += 1
    return None


def _ordinary_bmp(data: bytes) -> int | None:
    header = int.from_bytes(data[14:18], "little")
    if header == 12:
        return _OTHER_PIXEL_BYTES * _area(data[18:20], data[20:22], "little")
    # Pillow expands run lengths in Python.
    if header < 40 or (data[30:34] in {b"\1\0\0\0", b"\2\0\0\0"} and len(data) > _MAX_METADATA):
        return None
    width = int.from_bytes(data[18:22], "little", signed=True)
    height = int.from_bytes(data[22:26], "little", signed=True)
    return _OTHER_PIXEL_BYTES * abs(width * height)


def _ordinary_tiff(data: bytes) -> int | None:
    """One page in strips, bands together, compressed so that the number of pixels is the limit."""
    tags = _short_tags(data, _MAX_TAGS)
    if tags is None or tags.keys() & _TILE_TAGS or tags.get(_PLANES, 1) != 1:
        return None
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    if tags.get(_COMPRESSION, 1) not in _PLAIN_COMPRESSIONS or width < 1 or height < 1:
        return None
    return pixel_bytes("TIFF") * width * height


def _has_few_tags(exif: bytes) -> bool:
    """Whether EXIF data is small; Pillow reads all values of its first directory."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    return _short_tags(exif, _MAX_TAGS) is not None


def _short_tags(data: bytes, most: int) -> dict[int, int] | None:
    """The first directory of EXIF data or of a TIFF file: tag -> value, -1 if that is no number.

    None where it cannot be read, has more than ``most`` entries, one of them twice, or more than
    `_MAX_METADATA` bytes of values: several may lie at one place.
    """
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    place = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[place : place + 2], order)
    if data[:2] not in {b"II", b"MM"} or place < 8 or count > most:
        return None
    tags, total = {}, 0
    for start in range(place + 2, place + 2 + 12 * count, 12):
        kind = int.from_bytes(data[start + 2 : start + 4], order)
        values = int.from_bytes(data[start + 4 : start + 8], order)
        total += _TYPE_BYTES.get(kind, 0) * values
        is_number = kind in {_SHORT, _LONG} and values == 1
        value = data[start + 8 : start + 8 + _TYPE_BYTES.get(kind, 0)]
        tag = int.from_bytes(data[start : start + 2], order)
        tags[tag] = int.from_bytes(value, order) if is_number else -1
    return tags if total <= _MAX_METADATA and len(tags) == count else None


def _area(width: bytes, height: bytes, order: Literal["little", "big"]) -> int:
    return int.from_bytes(width, order) * int.from_bytes(height, order)
