"""Which files are ordinary by their header, and which are left to a decoder process."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from backend.images.decode import decode
from backend.images.headers import has_too_many_scans, ordinary_bytes
from tests.support import costly_images as costly
from tests.support.builders import photo
from tests.support.costly_images import encoded, png
from tests.support.png_files import animation

PHOTO = photo(1, 400, 300)
EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF[0x010F] = "a camera"
IDAT = (b"IDAT", zlib.compress(b"\0\0"))


def texts() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "a person")
    info.add_itxt("XML:com.adobe.xmp", "<x/>")
    return info


ORDINARY: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(PHOTO, "JPEG"),
    "JPEG with EXIF": lambda: encoded(PHOTO, "JPEG", exif=EXIF),
    "progressive JPEG": lambda: encoded(PHOTO, "JPEG", progressive=True),
    "CMYK JPEG": lambda: encoded(PHOTO.convert("CMYK"), "JPEG"),
    "grey JPEG": lambda: encoded(PHOTO.convert("L"), "JPEG"),
    "JPEG with a profile": lambda: encoded(PHOTO, "JPEG", icc_profile=bytes(200_000)),
    "MPO": lambda: encoded(PHOTO, "MPO", save_all=True, append_images=[photo(2)]),
    "PNG": lambda: encoded(PHOTO, "PNG", exif=EXIF, pnginfo=texts(), icc_profile=bytes(3000)),
    "RGBA PNG": lambda: encoded(PHOTO.convert("RGBA"), "PNG"),
    "PNG with EXIF that grows": lambda: costly.png_with_exif(3000, 1000),
    "PNG with compressed text": lambda: costly.png_of_texts(b"zTXt", 1),
    "PNG with many profiles": lambda: costly.png_of_texts(b"iCCP", 2),
    "PNG with compressed international text": lambda: png(
        1, 1, (b"iTXt", b"key\0\1\0\0\0" + zlib.compress(b"x")), IDAT
    ),
    "PNG with a profile as text": lambda: png(
        1, 1, (b"tEXt", b"Raw profile type exif\0\n\n"), IDAT
    ),
    "PNG with frames": lambda: animation(default_is_first=True),
    "WebP": lambda: encoded(PHOTO, "WEBP", exif=EXIF),
    "lossless WebP": lambda: encoded(PHOTO, "WEBP", lossless=True),
    "plain WebP": lambda: encoded(PHOTO, "WEBP"),
    "GIF": lambda: encoded(PHOTO, "GIF", comment=b"a comment"),
    "animated GIF": lambda: encoded(
        PHOTO, "GIF", save_all=True, append_images=[photo(2, 400, 300)], loop=0
    ),
    "BMP": lambda: encoded(PHOTO, "BMP"),
    "TIFF": lambda: encoded(PHOTO, "TIFF"),
    "LZW TIFF": lambda: encoded(PHOTO, "TIFF", compression="tiff_lzw"),
    "float TIFF": lambda: encoded(Image.fromarray(np.zeros((30, 40), np.float32)), "TIFF"),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_photos_stay_in_this_process(kind: str) -> None:
    data = ORDINARY[kind]()
    size = ordinary_bytes(data, 896)
    image = decode(data, 10**6, 896)
    assert size is not None and 8 * image.width * image.height <= size < 10**7


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>log in</html>", b"%PDF-1.7", b"RIFF\0\0\0\0WAVE", b"GIF89a"],
)
def test_what_is_refused_at_once_needs_no_process(data: bytes) -> None:
    assert ordinary_bytes(data, 896) == 0


def with_exif_twice() -> bytes:
    data = encoded(PHOTO, "JPEG", exif=EXIF)
    start = data.index(b"Exif\0\0") - 4
    length = 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return data[: start + length] + data[start : start + length] + data[start + length :]


def jpeg_of_size(width: int, height: int) -> bytes:
    data = encoded(Image.new("L", (8, 8)), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


COSTLY: dict[str, Callable[[], bytes]] = {
    "JPEG of 40 scans": lambda: costly.jpeg_of_many_scans(40, 16),
    "JPEG of many segments": lambda: costly.jpeg_of_many_segments(200),
    "JPEG with EXIF that grows": lambda: costly.jpeg_with_exif(3000),
    "JPEG with EXIF twice": with_exif_twice,
    "JPEG of many pixels": lambda: jpeg_of_size(9000, 9000),
    "PNG with frames but the first": lambda: animation(default_is_first=False),
    "PNG of many chunks": lambda: png(1, 1, *[(b"IDAT", b"")] * 30_000),
    "tiled TIFF": lambda: costly.tiff_of_tiles(64),
    "JPEG in a TIFF": lambda: encoded(PHOTO, "TIFF", compression="jpeg"),
    "big TIFF": lambda: b"II+\0" + bytes(20),
    "TIFF whose width is a fraction": lambda: encoded(PHOTO, "TIFF").replace(
        struct.pack("<HHL", 256, 4, 1), struct.pack("<HHL", 256, 5, 1)
    ),
    "GIF of many extensions": lambda: costly.gif_of_extensions(200),
    "GIF with a long comment": lambda: encoded(PHOTO, "GIF", comment=b"x" * 1000),
    "BMP in runs": lambda: costly.bmp_of_runs(800),
    "TIFF in planes": lambda: costly.tiff_of_planes(16),
    "HEIC": lambda: b"\0\0\0\x18ftypheic" + bytes(20),
    "AVIF": lambda: b"\0\0\0\x18ftypavif" + bytes(20),
    "HEIF that may be an AVIF": lambda: b"\0\0\0\x18ftypmif1" + bytes(20),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_what_may_be_costly_leaves_this_process(kind: str) -> None:
    assert ordinary_bytes(COSTLY[kind](), 896) is None


def test_scans_are_counted_as_a_decoder_finds_them() -> None:
    assert not has_too_many_scans(costly.jpeg_of_many_scans(80, 16))
    assert has_too_many_scans(costly.jpeg_of_many_scans(101, 16))
    # A marker without a length hides nothing.
    data = costly.jpeg_of_many_scans(200, 16)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    assert has_too_many_scans(data.replace(scan, b"\xff\x01" + scan))
    # Past the end of the image nobody decodes: a second picture in the same file, for example.
    plain = encoded(PHOTO, "JPEG", progressive=True)
    assert not has_too_many_scans(plain + costly.jpeg_of_many_scans(200, 16))


def test_a_draft_needs_less_memory_and_scans_more() -> None:
    baseline, progressive = (
        encoded(Image.new("RGB", (4000, 3000)), "JPEG", progressive=value)
        for value in (False, True)
    )
    whole, draft = ordinary_bytes(baseline, None), ordinary_bytes(baseline, 896)
    assert whole == 8 * 12_000_000 and draft == 8 * 3_000_000
    # Coefficients of two bytes, half as many of each colour in each direction.
    assert ordinary_bytes(progressive, 896) == 8 * 3_000_000 + 3 * 12_000_000


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(ORDINARY[draw(st.sampled_from(sorted(ORDINARY)))]()[:3000])
    for _ in range(draw(st.integers(1, 6))):
        data[draw(st.integers(0, min(len(data) - 1, 200)))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100) | damaged())
def test_any_bytes_get_an_answer(data: bytes) -> None:
    size: Any = ordinary_bytes(data, 896)
    assert size is None or size >= 0
