"""PNG files of every kind, made by hand: what an encoder writes, and what it should not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.builders import photo
from tests.support.exif_data import exif, xmp

WIDTH, HEIGHT = 97, 61
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
_PASSES += [(0, 1, 1, 2)]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = np.random.default_rng(3).integers(0, 256, (16, 3), np.uint8).tobytes()

Chunk = tuple[bytes, bytes]


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def header(depth: int, colour: int, interlaced: bool = False, size: Any = None) -> bytes:
    width, height = size or (WIDTH, HEIGHT)
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def samples(depth: int, colour: int) -> NDArray[Any]:
    """The picture in this depth: height x width x channels."""
    image = photo(7, WIDTH, HEIGHT)
    if colour == PALETTE:
        return (np.asarray(image.convert("L"))[..., None] >> 4).astype(np.uint16) & (1 << depth) - 1
    grey = colour in {GREY, GREY_ALPHA}
    values = np.asarray(image.convert("L"))[..., None] if grey else np.asarray(image)
    if colour in {GREY_ALPHA, RGBA}:
        alpha = np.asarray(photo(8, WIDTH, HEIGHT).convert("L"))[..., None]
        values = np.concatenate([values, alpha], axis=2)
    if depth == 16:
        return values.astype(np.uint16) * 257 + 90
    return values.astype(np.uint16) >> 8 - depth


def packed(values: NDArray[np.uint16], depth: int) -> bytes:
    """Rows of a PNG, unfiltered."""
    rows = []
    for row in values.reshape(len(values), -1):
        if depth >= 8:
            body = row.astype(">u2" if depth == 16 else np.uint8).tobytes()
        else:
            bits = (row[:, None] >> np.arange(depth)[::-1] & 1).astype(np.uint8)
            body = np.packbits(bits.reshape(-1)).tobytes()
        rows.append(b"\0" + body)
    return b"".join(rows)


def pixels(depth: int, colour: int, interlaced: bool = False) -> bytes:
    values = samples(depth, colour)
    if not interlaced:
        return packed(values, depth)
    parts = [values[top::down, left::right] for left, top, right, down in _PASSES]
    return b"".join(packed(part, depth) for part in parts if part.size)


def png(
    depth: int = 8,
    colour: int = RGB,
    *before: bytes,
    interlaced: bool = False,
    after: bytes = b"",
    body: bytes | None = None,
) -> bytes:
    """A PNG with these chunks before and after its pixels."""
    start = SIGNATURE + header(depth, colour, interlaced)
    if colour == PALETTE:
        start += chunk(b"PLTE", COLOURS[: 3 << depth])
    packer = zlib.compress(pixels(depth, colour, interlaced))
    data = chunk(b"IDAT", packer) if body is None else body
    return start + b"".join(before) + data + after + chunk(b"IEND", b"")


def split(size: int, depth: int = 8, colour: int = RGB) -> bytes:
    """The pixels in pieces, some of them empty."""
    data = zlib.compress(pixels(depth, colour))
    parts = [chunk(b"IDAT", data[at : at + size]) for at in range(0, len(data), size)]
    return chunk(b"IDAT", b"").join(parts)


def filtered() -> bytes:
    """As an encoder writes it, with filters."""
    from io import BytesIO

    out = BytesIO()
    photo(7, WIDTH, HEIGHT).save(out, "PNG")
    return out.getvalue()


def frame(sequence: int, size: tuple[int, int], place: tuple[int, int] = (0, 0)) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, *size, *place, 1, 10, 0, 0))


def frame_of(sequence: int, image: Image.Image) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(image))
    return chunk(b"fdAT", struct.pack(">I", sequence) + zlib.compress(rows))


def animation(default_is_first: bool, second: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """Two frames; the default image is the first of them, or is not shown at all."""
    control = chunk(b"acTL", struct.pack(">II", 2 if default_is_first else 1, 0))
    at = (WIDTH - second[0], HEIGHT - second[1])
    first = frame(0, (WIDTH, HEIGHT)) if default_is_first else b""
    start = 1 if default_is_first else 0
    other = frame_of(start + 1, photo(9, *second))
    return png(8, RGB, control, first, after=frame(start, second, at) + other)


def cut(data: bytes, part: float) -> bytes:
    return data[: round(len(data) * part)]


def texts(count: int, size: int) -> bytes:
    body = zlib.compress(b"x" * size)
    return b"".join(chunk(b"zTXt", b"c%d\0\0" % number + body) for number in range(count))


LONG = zlib.compress(b"x" * 1_200_000)
METADATA: dict[str, Callable[[], bytes]] = {
    "text of 1.2 MB": lambda: chunk(b"zTXt", b"Comment\0\0" + LONG),
    "international text of 1.2 MB": lambda: chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + LONG),
    "profile of 1.2 MB": lambda: chunk(b"iCCP", b"icc\0\0" + LONG),
    "68 MB of texts": lambda: texts(68, 1_000_000),
    "text with a wrong checksum": lambda: chunk(b"tEXt", b"Comment\0hello", 0),
    "profile with a wrong checksum": lambda: chunk(b"iCCP", b"icc\0\0" + LONG, 0),
    "time with a wrong checksum": lambda: chunk(b"tIME", bytes(7), 1),
    "text that is no zlib stream": lambda: chunk(b"zTXt", b"Comment\0\0hello"),
    "text compressed in an unknown way": lambda: chunk(b"zTXt", b"Comment\0\7hello"),
    "profile compressed in an unknown way": lambda: chunk(b"iCCP", b"icc\0\7hello"),
    "short gamma": lambda: chunk(b"gAMA", b"\0"),
    "short chromaticities": lambda: chunk(b"cHRM", b"\0"),
    "short intent": lambda: chunk(b"sRGB", b""),
    "short density": lambda: chunk(b"pHYs", b"\0"),
    "short number of frames": lambda: chunk(b"acTL", b"\0"),
    "short frame control": lambda: chunk(b"fcTL", b"\0"),
    "frame control out of order": lambda: frame(7, (WIDTH, HEIGHT)),
    "frame control beyond the canvas": lambda: frame(0, (1000, 1000)),
    "broken EXIF data": lambda: chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "name of no letters": lambda: chunk(b"tE\xfft", b"x"),
    "private chunk": lambda: chunk(b"prVt", b"x" * 2_000_000),
    "empty chunks": lambda: chunk(b"tEXt", b"") + chunk(b"zTXt", b"") + chunk(b"iTXt", b""),
}
"""What may lie before the pixels and says nothing about them."""


def kinds() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file that a browser shows."""
    for colour, depths in ((GREY, (1, 2, 4, 8, 16)), (RGB, (8, 16)), (PALETTE, (1, 2, 4))):
        for depth in depths:
            yield f"colour {colour}, {depth} bits", png(depth, colour)
            yield f"colour {colour}, {depth} bits, interlaced", png(depth, colour, interlaced=True)
    for colour in (GREY_ALPHA, RGBA):
        for depth in (8, 16):
            yield f"colour {colour}, {depth} bits", png(depth, colour)
    for depth in (1, 2, 4, 8, 16):
        value = samples(depth, GREY)[30, 40].tobytes()[::-1]
        yield f"grey, {depth} bits, one transparent", png(depth, GREY, chunk(b"tRNS", value))
    for depth in (8, 16):
        value = samples(depth, RGB)[30, 40].astype(">u2").tobytes()
        yield f"RGB, {depth} bits, one transparent", png(depth, RGB, chunk(b"tRNS", value))
    yield "palette, some transparent", png(4, PALETTE, chunk(b"tRNS", bytes(range(0, 250, 20))))
    yield "palette, one transparent", png(4, PALETTE, chunk(b"tRNS", b"\xff\xff\0"))
    yield "filtered", filtered()
    yield "pixels in pieces", png(body=split(50))
    yield "data after the pixels", png(body=split(10**6) + chunk(b"IDAT", b"more"))
    yield "without an end", png()[:-12]
    yield "with half an end", png()[:-6]
    yield "data after the end", png() + b"junk" * 100
    yield "text after the pixels", png(after=texts(3, 1_200_000))
    yield "gamma 1", png(8, RGB, chunk(b"gAMA", struct.pack(">I", 100_000)))
    yield "gamma 1/2.2", png(8, RGB, chunk(b"gAMA", struct.pack(">I", 45_455)))
    yield "gamma 1/1.8", png(8, RGB, chunk(b"gAMA", struct.pack(">I", 55_556)))
    yield "gamma 1 and transparent", png(8, RGBA, chunk(b"gAMA", struct.pack(">I", 100_000)))
    yield "gamma 1, palette", png(4, PALETTE, chunk(b"gAMA", struct.pack(">I", 100_000)))
    yield "gamma 1, 16 bits", png(16, GREY, chunk(b"gAMA", struct.pack(">I", 100_000)))
    yield (
        "gamma 1 and sRGB",
        png(8, RGB, chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"sRGB", b"\0")),
    )
    yield "gamma 0", png(8, RGB, chunk(b"gAMA", bytes(4)))
    yield "sRGB", png(8, RGB, chunk(b"sRGB", b"\0"))
    yield "background", png(8, RGBA, chunk(b"bKGD", bytes(6)))
    yield "EXIF orientation", png(8, RGB, chunk(b"eXIf", exif(6)))
    yield "EXIF orientation with its name", png(8, RGB, chunk(b"eXIf", b"Exif\0\0" + exif(6)))
    yield "EXIF orientation after the pixels", png(after=chunk(b"eXIf", exif(6)))
    yield "EXIF orientation twice", png(8, RGB, chunk(b"eXIf", exif(6)) + chunk(b"eXIf", exif(3)))
    yield "EXIF orientation with a wrong checksum", png(8, RGB, chunk(b"eXIf", exif(6), 0))
    yield "XMP orientation", png(8, RGB, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)))
    hexed = b"Raw profile type exif\0\nexif\n  32\n" + (b"Exif\0\0" + exif(6)).hex().encode()
    yield "EXIF orientation as text", png(8, RGB, chunk(b"tEXt", hexed))
    yield "animation", animation(True)
    yield "animation with a small frame", animation(True, (30, 20))
    yield "animation without its default image", animation(False)
    yield "animation with a small first frame", animation(False, (30, 20))
    for name, make in METADATA.items():
        yield name, png(8, RGB, make())
    noise = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH * 3 + 1), np.uint8)
    noise[:, 0] = 0
    stored = png(body=chunk(b"IDAT", zlib.compress(noise.tobytes())))
    mixed = png(body=chunk(b"IDAT", zlib.compress(pixels(8, RGB, True))), interlaced=True)
    for part in (0.99, 0.95, 0.85, 0.5, 0.1):
        yield f"{part:.0%}", cut(stored, part)
        yield f"filtered, {part:.0%}", cut(filtered(), part)
        yield f"interlaced, {part:.0%}", cut(mixed, part)
    yield "pixels with a wrong checksum", png(body=chunk(b"IDAT", zlib.compress(pixels(8, RGB)), 0))
    yield (
        "pixels whose sum is wrong",
        png(body=chunk(b"IDAT", zlib.compress(pixels(8, RGB))[:-4] + b"abcd")),
    )
    late = bytearray(filtered())
    late[-300:-290] = bytes(10)
    yield "damaged pixels near the end", bytes(late)
    yield "transparency with a wrong checksum", png(4, PALETTE, chunk(b"tRNS", b"\xff\xff\0", 0))
    yield (
        "palette with a wrong checksum",
        (
            SIGNATURE
            + header(4, PALETTE)
            + chunk(b"PLTE", COLOURS, 0)
            + chunk(b"IDAT", zlib.compress(pixels(4, PALETTE)))
            + chunk(b"IEND", b"")
        ),
    )
    yield (
        "short palette",
        (
            SIGNATURE
            + header(4, PALETTE)
            + chunk(b"PLTE", COLOURS[:24])
            + chunk(b"IDAT", zlib.compress(pixels(4, PALETTE)))
            + chunk(b"IEND", b"")
        ),
    )
    yield "longer transparency than palette", png(4, PALETTE, chunk(b"tRNS", bytes(range(60))))
    yield "short transparency", png(8, RGB, chunk(b"tRNS", b"\0\1"))
    yield "transparency of an image with alpha", png(8, RGBA, chunk(b"tRNS", bytes(6)))
    yield "unknown critical chunk", png(8, RGB, chunk(b"ABCD", b"x"))
    yield "palette of an RGB image", png(8, RGB, chunk(b"PLTE", COLOURS))
    yield "two palettes", png(4, PALETTE, chunk(b"PLTE", COLOURS[::-1]))
    yield "header with a wrong checksum", (SIGNATURE + header(8, RGB)[:-4] + b"abcd" + png()[33:])
    apart = zlib.compress(pixels(8, RGB))
    yield (
        "pixels in two places",
        png(
            body=chunk(b"IDAT", apart[:900]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", apart[900:])
        ),
    )
