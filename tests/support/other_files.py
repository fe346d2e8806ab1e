"""GIF, BMP, WebP and AVIF files of every kind."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, features

from tests.support.builders import photo
from tests.support.costly_images import encoded
from tests.support.exif_data import exif, xmp
from tests.support.jpeg_files import noisy

WIDTH, HEIGHT = 97, 61
SIZE = (WIDTH, HEIGHT)
PICTURE = photo(7, *SIZE)


def palette_image(size: tuple[int, int] = SIZE, seed: int = 7) -> Image.Image:
    return photo(seed, *size).quantize(64)


def gif(image: Image.Image | None = None, **options: Any) -> bytes:
    return encoded(image or palette_image(), "GIF", **options)


def gif_screen(data: bytes, size: tuple[int, int], place: tuple[int, int]) -> bytes:
    """On a screen of this size, its first frame at this place."""
    out = bytearray(data)
    out[6:10] = struct.pack("<HH", *size)
    at = out.index(b",", 13 + (3 << (out[10] & 7) + 1 if out[10] & 0x80 else 0))
    out[at + 1 : at + 5] = struct.pack("<HH", *place)
    return bytes(out)


def bmp(
    bits: int,
    rows: bytes,
    *,
    size: tuple[int, int] = SIZE,
    header: int = 40,
    compression: int = 0,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
    colours: int = 0,
) -> bytes:
    """A BMP made by hand; a negative height begins at the top."""
    width, height = size
    if header == 12:
        info = struct.pack("<LHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack(
            "<LllHHLLllLL",
            header,
            width,
            height,
            1,
            bits,
            compression,
            len(rows),
            2835,
            2835,
            colours,
            0,
        )
        info += struct.pack(f"<{len(masks)}L", *masks)
        info = info.ljust(header, b"\0")
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<LHHL", start + len(rows), 0, 0, start) + info + palette + rows


def bmp_rows(values: np.ndarray[Any, Any], upwards: bool = True) -> bytes:
    """Rows of bytes, each filled up to 4."""
    rows = [row.tobytes() for row in (values[::-1] if upwards else values)]
    return b"".join(row + bytes(-len(row) % 4) for row in rows)


def bmp_kinds() -> Iterator[tuple[str, bytes]]:
    rgb = np.asarray(PICTURE)
    bgr = rgb[..., ::-1]
    yield "BMP", encoded(PICTURE, "BMP")
    yield "BMP grey", encoded(PICTURE.convert("L"), "BMP")
    yield "BMP palette", encoded(palette_image(), "BMP")
    yield "BMP 1 bit", encoded(PICTURE.convert("1"), "BMP")
    yield "BMP 24 bits downwards", bmp(24, bmp_rows(bgr, False), size=(WIDTH, -HEIGHT))
    yield "BMP OS/2", bmp(24, bmp_rows(bgr), header=12)
    colours = np.random.default_rng(5).integers(0, 256, (16, 3), np.uint8)
    grey = np.asarray(PICTURE.convert("L")) >> 4
    nibbles = np.pad(grey, ((0, 0), (0, 1)))
    four = bmp_rows((nibbles[:, ::2] << 4 | nibbles[:, 1::2]).astype(np.uint8))
    quads = np.pad(colours, ((0, 0), (0, 1)))
    yield "BMP 4 bits", bmp(4, four, palette=quads.tobytes(), colours=16)
    yield "BMP OS/2 4 bits", bmp(4, four, palette=colours.tobytes(), header=12)
    runs8, runs4 = [], []
    for row in grey[::-1]:
        for value in row:
            runs8.append(bytes([1, value]))
            runs4.append(bytes([1, value << 4]))
        runs8.append(b"\0\0")
        runs4.append(b"\0\0")
    end = b"\0\1"
    yield (
        "BMP RLE8",
        bmp(8, b"".join(runs8) + end, compression=1, palette=quads.tobytes(), colours=16),
    )
    yield (
        "BMP RLE4",
        bmp(4, b"".join(runs4) + end, compression=2, palette=quads.tobytes(), colours=16),
    )
    yield (
        "BMP RLE8 that ends early",
        bmp(
            8,
            b"".join(runs8[: len(runs8) // 2]) + end,
            compression=1,
            palette=quads.tobytes(),
            colours=16,
        ),
    )
    yield (
        "BMP RLE8 with jumps",
        bmp(8, b"\5\3\0\2\4\6\7\2\0\1", compression=1, palette=quads.tobytes(), colours=16),
    )
    wide = rgb.astype(np.uint16)
    five = (wide[..., 0] >> 3 << 10 | wide[..., 1] >> 3 << 5 | wide[..., 2] >> 3).astype("<u2")
    yield "BMP 16 bits", bmp(16, bmp_rows(five))
    six = (wide[..., 0] >> 3 << 11 | wide[..., 1] >> 2 << 5 | wide[..., 2] >> 3).astype("<u2")
    yield (
        "BMP 5-6-5",
        bmp(16, bmp_rows(six), header=56, compression=3, masks=(0xF800, 0x7E0, 0x1F, 0)),
    )
    yield (
        "BMP 5-5-5 by masks",
        bmp(16, bmp_rows(five), header=56, compression=3, masks=(0x7C00, 0x3E0, 0x1F, 0)),
    )
    four_bits = (wide[..., 0] >> 4 << 8 | wide[..., 1] >> 4 << 4 | wide[..., 2] >> 4).astype("<u2")
    yield (
        "BMP 4-4-4",
        bmp(16, bmp_rows(four_bits), header=56, compression=3, masks=(0xF00, 0xF0, 0xF, 0)),
    )
    alpha = np.asarray(photo(8, *SIZE).convert("L"))[..., None]
    quad = np.concatenate([bgr, alpha], axis=2)
    yield "BMP 32 bits", bmp(32, bmp_rows(np.concatenate([bgr, bgr[..., :1] * 0], axis=2)))
    yield "BMP 32 bits, fourth byte used", bmp(32, bmp_rows(quad))
    for header in (40, 56, 108, 124):
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        yield (
            f"BMP 32 bits with alpha, header {header}",
            bmp(32, bmp_rows(quad), header=header, compression=3, masks=masks),
        )
    yield (
        "BMP 32 bits, no alpha mask",
        bmp(32, bmp_rows(quad), header=124, compression=3, masks=(0xFF0000, 0xFF00, 0xFF, 0)),
    )
    yield (
        "BMP 32 bits, alpha mask, alpha 0",
        bmp(
            32,
            bmp_rows(np.concatenate([bgr, bgr[..., :1] * 0], axis=2)),
            header=124,
            compression=3,
            masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        ),
    )
    yield "BMP with data after it", encoded(PICTURE, "BMP") + b"junk" * 50
    big = encoded(noisy(), "BMP")
    for part in (0.99, 0.95, 0.85, 0.5):
        yield f"BMP {part:.0%}", big[: round(len(big) * part)]
    down = bmp(24, bmp_rows(bgr, False), size=(WIDTH, -HEIGHT))
    yield "BMP downwards 95%", down[: round(len(down) * 0.95)]
    small = encoded(palette_image(), "BMP")
    yield "BMP palette 95%", small[: round(len(small) * 0.95)]


def gif_kinds() -> Iterator[tuple[str, bytes]]:
    frames = [palette_image(SIZE, seed) for seed in (9, 10)]
    yield "GIF", gif()
    yield "GIF interlaced", gif(interlace=1)
    yield "GIF not interlaced", gif(interlace=0)
    yield "GIF grey", gif(PICTURE.convert("L"))
    yield "GIF 1 bit", gif(PICTURE.convert("1"))
    yield "GIF with a transparent colour", gif(transparency=5)
    yield "GIF animation", gif(save_all=True, append_images=frames, loop=0)
    for disposal in (0, 1, 2, 3):
        yield (
            f"GIF animation, disposal {disposal}",
            gif(save_all=True, append_images=frames, disposal=disposal, transparency=3),
        )
    blank = Image.new("P", SIZE, 0)
    yield (
        "GIF with a transparent first frame",
        gif(blank, transparency=0, save_all=True, append_images=frames),
    )
    for name, size, place in (
        ("small frame", (120, 80), (10, 5)),
        ("frame beyond the screen", (60, 40), (0, 0)),
        ("frame partly beyond the screen", (100, 70), (30, 20)),
        ("screen of nothing", (0, 0), (0, 0)),
    ):
        yield f"GIF {name}", gif_screen(gif(interlace=0), size, place)
        yield f"GIF {name}, transparent", gif_screen(gif(interlace=0, transparency=5), size, place)
    background = bytearray(gif_screen(gif(interlace=0), (120, 80), (10, 5)))
    background[11] = 7
    yield "GIF small frame, background", bytes(background)
    yield "GIF with a comment", gif(comment=b"x" * 1000)
    yield "GIF with data after it", gif() + b"junk" * 50
    yield "GIF without an end", gif()[:-1]
    large = gif(noisy().quantize(128), interlace=0)
    mixed = gif(noisy().quantize(128), interlace=1)
    for part in (0.99, 0.95, 0.85, 0.5):
        yield f"GIF {part:.0%}", large[: round(len(large) * part)]
        yield f"GIF interlaced {part:.0%}", mixed[: round(len(mixed) * part)]
    two = gif(noisy().quantize(128), save_all=True, append_images=[photo(9, 400, 300).quantize(60)])
    yield "GIF cut in its second frame", two[:-400]
    yield (
        "GIF with its screen's palette missing",
        gif()[:10] + bytes([gif()[10] & 0x7F]) + gif()[11:],
    )


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_with(data: bytes, *chunks: tuple[bytes, bytes], flags: int = 8, size: Any = SIZE) -> bytes:
    """A plain WebP with these chunks after its pixels."""
    kind, length = data[12:16], int.from_bytes(data[16:20], "little")
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    extended = (b"VP8X", bytes([flags, 0, 0, 0]) + sides)
    return riff(extended, (kind, data[20 : 20 + length]), *chunks)


def webp_kinds() -> Iterator[tuple[str, bytes]]:
    lossy = encoded(PICTURE, "WEBP", quality=90)
    lossless = encoded(PICTURE, "WEBP", lossless=True)
    rgba = PICTURE.copy()
    rgba.putalpha(photo(8, *SIZE).convert("L"))
    yield "WebP", lossy
    yield "WebP lossless", lossless
    yield "WebP with alpha", encoded(rgba, "WEBP", quality=90)
    yield "WebP lossless with alpha", encoded(rgba, "WEBP", lossless=True)
    frames = [photo(seed, *SIZE) for seed in (9, 10)]
    yield "WebP animation", encoded(PICTURE, "WEBP", save_all=True, append_images=frames)
    yield "WebP animation with alpha", encoded(rgba, "WEBP", save_all=True, append_images=frames)
    yield (
        "WebP animation, background",
        encoded(rgba, "WEBP", save_all=True, append_images=frames, background=(255, 0, 0, 255)),
    )
    yield "WebP EXIF", webp_with(lossy, (b"EXIF", exif(6)))
    yield "WebP EXIF with its name", webp_with(lossy, (b"EXIF", b"Exif\0\0" + exif(6)))
    yield "WebP EXIF without its flag", webp_with(lossy, (b"EXIF", exif(6)), flags=0)
    yield "WebP EXIF twice", webp_with(lossy, (b"EXIF", exif(6)), (b"EXIF", exif(3)))
    yield "WebP XMP", webp_with(lossy, (b"XMP ", xmp(6)), flags=4)
    yield "WebP broken EXIF", webp_with(lossy, (b"EXIF", b"junk"))
    yield (
        "WebP EXIF of a plain file",
        lossy[:4]
        + struct.pack("<I", len(lossy) - 8 + 8 + 26)
        + lossy[8:]
        + b"EXIF"
        + struct.pack("<I", 26)
        + exif(6)[:26],
    )
    yield "WebP with data after it", lossy + b"junk" * 50
    marked = webp_with(lossy, (b"EXIF", exif(1, more=40)))
    yield "WebP cut in its EXIF data", marked[:-100]
    yield (
        "WebP cut in its EXIF data, turned",
        webp_with(lossy, (b"EXIF", exif(6)), (b"XMP ", xmp(6) * 9))[:-100],
    )
    yield "WebP with a wrong size", lossy[:4] + struct.pack("<I", len(lossy) + 100) + lossy[8:]
    yield "WebP with a small size", lossy[:4] + struct.pack("<I", len(lossy) - 60) + lossy[8:]
    big = encoded(noisy(), "WEBP", quality=90)
    exact = encoded(noisy(), "WEBP", lossless=True)
    moving = encoded(noisy(), "WEBP", save_all=True, append_images=[photo(9, 400, 300)])
    clear = noisy()
    clear.putalpha(photo(8, 400, 300).convert("L"))
    alpha = encoded(clear, "WEBP", quality=90)
    for part in (0.99, 0.95, 0.85, 0.5):
        yield f"WebP {part:.0%}", big[: round(len(big) * part)]
        yield f"WebP lossless {part:.0%}", exact[: round(len(exact) * part)]
        yield f"WebP animation {part:.0%}", moving[: round(len(moving) * part)]
        yield f"WebP alpha {part:.0%}", alpha[: round(len(alpha) * part)]


def avif_kinds() -> Iterator[tuple[str, bytes]]:
    if not features.check("avif"):
        return
    plain = encoded(PICTURE, "AVIF", quality=95)
    yield "AVIF", plain
    yield "AVIF 4:4:4", encoded(PICTURE, "AVIF", quality=95, subsampling="4:4:4")
    rgba = PICTURE.copy()
    rgba.putalpha(photo(8, *SIZE).convert("L"))
    yield "AVIF with alpha", encoded(rgba, "AVIF", quality=95)
    yield "AVIF grey", encoded(PICTURE.convert("L"), "AVIF", quality=95)
    frames = [photo(seed, *SIZE) for seed in (9, 10)]
    yield "AVIF animation", encoded(PICTURE, "AVIF", save_all=True, append_images=frames)
    for orientation in range(1, 9):
        yield (
            f"AVIF turned {orientation}",
            encoded(PICTURE, "AVIF", quality=95, exif=b"Exif\0\0" + exif(orientation)),
        )
    big = encoded(noisy(), "AVIF", quality=90)
    for part in (0.99, 0.95, 0.85, 0.5):
        yield f"AVIF {part:.0%}", big[: round(len(big) * part)]
    yield "AVIF with data after it", plain + b"junk" * 50
    yield "AVIF of a general brand", plain.replace(b"ftypavif", b"ftypmif1", 1)


def kinds() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file that a browser shows."""
    yield from gif_kinds()
    yield from bmp_kinds()
    yield from webp_kinds()
    yield from avif_kinds()
