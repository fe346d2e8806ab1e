"""Image files that are small and cost much to decode, of each kind that is known."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

SIDE = 10_000
"""The largest square that the default limit on pixels allows."""


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def png(
    width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, colour: int = 0
) -> bytes:
    """A PNG made by hand; colour 0 is grey, 2 is RGB, 6 is RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        parts.append(struct.pack(">I", len(body)) + kind + body)
        parts.append(struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def jpeg_of_many_scans(scans: int, side: int = 3000) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + b"\xff\xd9"


def jpeg_of_many_segments(count: int) -> bytes:
    """A JPEG that begins with comments of one byte."""
    data = encoded(Image.new("L", (8, 8)), "JPEG")
    return data[:2] + b"\xff\xfe\0\3x" * count + data[2:]


def endless() -> bytes:
    """A file that takes longer to decode than any test."""
    return jpeg_of_many_segments(6_000_000)


def exif_of_overlapping_values(tags: int, size: int) -> bytes:
    """EXIF data whose tags all have the same bytes as their value."""
    entries = b"".join(struct.pack("<HHLL", 1000 + number, 7, size, 8) for number in range(tags))
    directory = struct.pack("<H", tags) + entries + bytes(4)
    return b"II*\0" + struct.pack("<L", size + 8) + bytes(size) + directory


def jpeg_with_exif(tags: int) -> bytes:
    """A JPEG whose EXIF data grows a thousandfold when it is read."""
    data = encoded(Image.new("L", (8, 8)), "JPEG")
    body = b"Exif\0\0" + exif_of_overlapping_values(tags, 65_000 - 12 * tags)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def png_with_exif(tags: int, size: int) -> bytes:
    body = exif_of_overlapping_values(tags, size)
    return png(1, 1, (b"eXIf", body), (b"IDAT", zlib.compress(b"\0\0")))


def png_of_texts(kind: bytes, count: int) -> bytes:
    """A PNG with so many pieces of compressed text or colour profile, each of almost 1 MB."""
    body = b"\0\0" + zlib.compress(bytes(1_000_000), 9)
    chunks = [(kind, body if kind == b"zTXt" else b"x" + body)] * count
    return png(1, 1, *chunks, (b"IDAT", zlib.compress(b"\0\0")))


def tiff_of_tiles(side: int, compression: int = 8) -> bytes:
    """A grey TIFF of 16 x 16 tiles, which all lie at the same place."""
    count = (side // 16) ** 2
    tile = zlib.compress(bytes(256)) if compression == 8 else bytes(256)
    offsets = 8 + len(tile) + len(tile) % 2
    sizes = offsets + 4 * count
    tags = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 3, 1, 16),
        (323, 3, 1, 16),
        (324, 4, count, offsets),
        (325, 4, count, sizes),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHLL", *t) for t in tags)
    return (
        b"II*\0"
        + struct.pack("<L", sizes + 4 * count)
        + tile.ljust(offsets - 8, b"\0")
        + struct.pack("<L", 8) * count
        + struct.pack("<L", len(tile)) * count
        + directory
        + bytes(4)
    )


def tiff_of_floats(side: int = SIDE) -> bytes:
    image = Image.new("F", (side, side), 0.5)
    image.putpixel((3, 5), 2.0)
    return encoded(image, "TIFF", compression="tiff_adobe_deflate")


def gif_of_frames(count: int, side: int = 64) -> bytes:
    """A GIF whose one frame comes again and again."""
    data = encoded(Image.new("P", (side, side), 3), "GIF")
    frame = data[data.index(b",", 13) : -1]
    return data[:-1] + frame * count + b";"


def gif_of_extensions(count: int) -> bytes:
    """A GIF with very many empty extensions before its frame."""
    data = encoded(Image.new("P", (8, 8)), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + b"!\x01\0" * count + data[start:]


def bmp_of_runs(side: int) -> bytes:
    """A BMP in runs of a single pixel each."""
    row = b"\1\7" * side + b"\0\0"
    body = row * side + b"\0\1"
    header = struct.pack("<LllHHLLllLL", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    start = 14 + len(header) + 1024
    return (
        b"BM" + struct.pack("<LHHL", start + len(body), 0, 0, start) + header + bytes(1024) + body
    )


def png_of_rgba(side: int = SIDE) -> bytes:
    """A transparent PNG, large and empty."""
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + 4 * side)) for _ in range(side)) + packer.flush()
    return png(side, side, (b"IDAT", rows), colour=6)


def flat(name: str, side: int, **options: Any) -> bytes:
    """One colour, in a format that shrinks it to almost nothing."""
    return encoded(Image.new("RGB", (side, side), (10, 120, 200)), name, **options)


def heic(side: int) -> bytes:
    """Of one colour."""
    import pillow_heif

    out = BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (side, side), (10, 120, 200))).save(out)
    return out.getvalue()


def tiff_of_planes(side: int) -> bytes:
    """A TIFF of three bands, one after the other."""
    from tests.support.tiff_files import DEFLATE, tiff

    return tiff(np.zeros((side, side, 3), np.uint8), 2, planar=True, compression=DEFLATE)
