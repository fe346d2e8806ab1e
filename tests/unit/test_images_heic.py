"""HEIC images: what they are called, and what is read of them where pillow-heif is installed."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from backend.errors import ImageError, ImageReason
from backend.images.decode import decode
from backend.images.headers import ordinary_bytes
from tests.support.builders import photo
from tests.support.costly_images import encoded
from tests.support.exif_data import exif

SIZE = (96, 64)
PICTURE = photo(7, *SIZE)
CODING = [b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"]
GENERAL = [b"mif1", b"msf1"]


def heic(image: Image.Image = PICTURE, **options: Any) -> bytes:
    out = BytesIO()
    pillow_heif.from_pillow(image).save(out, **{"quality": 90, "chroma": 444, **options})
    return out.getvalue()


def off(data: bytes, expected: Image.Image = PICTURE) -> float:
    """The mean difference from what is expected."""
    got = decode(data, 10**6)
    assert (got.mode, got.size) == ("RGB", expected.size)
    return float(np.abs(np.asarray(got).astype(int) - np.asarray(expected)).mean())


def refusal(data: bytes, max_pixels: int = 10**6) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels)
    return caught.value


def box(major: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + major + bytes(4) + b"".join(compatible)
    return (4 + len(body)).to_bytes(4, "big") + body


@pytest.fixture
def _missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


@pytest.mark.usefixtures("_missing")
@pytest.mark.parametrize(
    "start",
    [
        *(box(brand) for brand in CODING + GENERAL),
        *(box(b"abcd", b"efgh", brand) for brand in CODING + GENERAL),
        box(b"heic", b"mif1", b"avif"),
    ],
)
def test_without_pillow_heif_the_error_names_both_ways_out(start: bytes) -> None:
    error = refusal(start + bytes(100))
    assert error.reason == ImageReason.UNSUPPORTED_FORMAT
    assert "a HEIC image" in error.message
    assert "[heic]" in error.fix and "JPEG" in error.fix


@pytest.mark.parametrize("brands", [(b"isom", b"mp42"), (b"qt  ",), (b"mp42",)])
def test_videos_are_called_videos(brands: tuple[bytes, ...]) -> None:
    assert "an MP4 video" in refusal(box(*brands) + bytes(100)).message


def test_avif_is_avif_by_any_of_its_brands() -> None:
    data = encoded(PICTURE, "AVIF", quality=95, subsampling="4:4:4")
    assert off(data) < 3
    assert off(data.replace(b"ftypavif", b"ftypmiaf", 1)) < 3
    assert off(data.replace(b"ftypavif", b"ftypmif1", 1)) < 3


def test_the_pixels_of_a_heic_image() -> None:
    assert off(heic()) < 2
    assert off(heic(PICTURE.convert("L")), PICTURE.convert("L").convert("RGB")) < 2
    assert off(heic(photo(7, 300, 200), tile_size=128), photo(7, 300, 200)) < 2


def test_ten_bits_become_eight() -> None:
    values = np.asarray(PICTURE).astype(np.uint16) * 257
    out = BytesIO()
    pillow_heif.from_bytes("RGB;16", SIZE, values.tobytes()).save(out, quality=90, chroma=444)
    assert pillow_heif.open_heif(out).info["bit_depth"] == 10
    assert off(out.getvalue()) < 2


def test_transparent_pixels_are_white() -> None:
    image = PICTURE.convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 48, 64))
    expected = PICTURE.copy()
    expected.paste((255, 255, 255), (0, 0, 48, 64))
    assert off(heic(image), expected) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_once(orientation: int) -> None:
    out = BytesIO()
    # What the EXIF data says is written as irot and imir, too.
    options: Any = {"quality": 90, "chroma": 444, "exif": b"Exif\0\0" + exif(orientation)}
    pillow_heif.encode("RGB", SIZE, PICTURE.tobytes(), out, **options)
    with_exif = PICTURE.copy()
    with_exif.getexif()[0x0112] = orientation
    assert off(out.getvalue(), ImageOps.exif_transpose(with_exif)) < 2


def test_irot_counts_and_the_orientation_in_exif_data_does_not() -> None:
    # Written under another tag, so that it is not turned into an irot property.
    hidden = exif(6).replace(b"\x12\1", b"\x13\1")
    data = heic(exif=b"Exif\0\0" + hidden)
    assert data.count(hidden) == 1
    assert off(data.replace(hidden, exif(6))) < 2


@pytest.mark.parametrize("brand", CODING + GENERAL)
def test_the_brand_does_not_matter_to_the_decoder(brand: bytes) -> None:
    assert off(heic().replace(b"ftypheic", b"ftyp" + brand, 1)) < 2


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_a_cut_file_is_truncated(part: float) -> None:
    data = heic()
    error = refusal(data[: int(len(data) * part)])
    assert error.reason == ImageReason.TRUNCATED and "HEIC" in error.message


def test_a_damaged_file_is_corrupt() -> None:
    data = bytearray(heic())
    data[40:60] = bytes(20)
    assert refusal(bytes(data)).reason == ImageReason.CORRUPT


def test_limits_hold_before_anything_is_decoded() -> None:
    data = heic()
    assert refusal(data, 96 * 64 - 1).reason == ImageReason.TOO_MANY_PIXELS
    needed: list[int] = []
    decode(data, 10**6, None, needed.append)
    assert needed[0] >= 17 * 96 * 64
    assert ordinary_bytes(data, 224) is None
