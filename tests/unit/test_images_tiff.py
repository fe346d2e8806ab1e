"""TIFF files come out as the specification says, or are refused by what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backend.errors import ImageError
from backend.images.decode import decode
from tests.support.costly_images import encoded
from tests.support.tiff_files import (
    DEFLATE,
    GREY,
    OTHER,
    PICTURE,
    SIZE,
    over_white,
    packed,
    tiff,
    wide,
    with_bands,
)

BLACK, MIN_IS_WHITE, RGB, PALETTE, CMYK, YCBCR, LAB = 1, 0, 2, 3, 5, 6, 8
GREY3 = np.repeat(GREY[..., None], 3, axis=2)
NOTHING = np.zeros_like(GREY)
ASSOCIATED = np.rint(PICTURE * (OTHER / 255.0)[..., None]).astype(np.uint8)
INKS = np.asarray(Image.fromarray(PICTURE).convert("CMYK"))
COLOURS = np.random.default_rng(2).integers(0, 256, (3, 256), np.uint16)
TWELVE = np.rint(GREY.astype(np.float64) * 4095 / 255).astype(np.uint16)

Case = tuple[Callable[..., bytes], NDArray[np.uint8], int]

CASES: dict[str, Case] = {
    "grey": (lambda **o: tiff(GREY, BLACK, **o), GREY3, 0),
    "MinIsWhite": (lambda **o: tiff(255 - GREY, MIN_IS_WHITE, **o), GREY3, 0),
    "16 bits": (lambda **o: tiff(wide(GREY), BLACK, **o), GREY3, 0),
    "16 bits, MinIsWhite": (lambda **o: tiff(65535 - wide(GREY), MIN_IS_WHITE, **o), GREY3, 0),
    "signed 8 bits": (
        lambda **o: tiff(
            (GREY.astype(np.int16) - 128).astype(np.int8), BLACK, sample_format=2, **o
        ),
        GREY3,
        0,
    ),
    "RGB": (lambda **o: tiff(PICTURE, RGB, **o), PICTURE, 0),
    "RGB, 16 bits": (lambda **o: tiff(wide(PICTURE), RGB, **o), PICTURE, 0),
    "fourth band without a meaning": (lambda **o: tiff(with_bands(NOTHING), RGB, **o), PICTURE, 0),
    "fourth band of 16 bits": (
        lambda **o: tiff(with_bands(NOTHING, base=wide(PICTURE)), RGB, **o),
        PICTURE,
        0,
    ),
    "fourth and fifth band": (
        lambda **o: tiff(with_bands(NOTHING, OTHER), RGB, **o),
        PICTURE,
        0,
    ),
    "six bands": (lambda **o: tiff(with_bands(NOTHING, OTHER, OTHER), RGB, **o), PICTURE, 0),
    "fourth band, unspecified": (
        lambda **o: tiff(with_bands(NOTHING), RGB, extra=[0], **o),
        PICTURE,
        0,
    ),
    "two more bands, unspecified": (
        lambda **o: tiff(with_bands(NOTHING, OTHER), RGB, extra=[0, 0], **o),
        PICTURE,
        0,
    ),
    "alpha": (
        lambda **o: tiff(with_bands(OTHER), RGB, extra=[2], **o),
        over_white(PICTURE, OTHER),
        1,
    ),
    "alpha of 16 bits": (
        lambda **o: tiff(with_bands(wide(OTHER), base=wide(PICTURE)), RGB, extra=[2], **o),
        over_white(PICTURE, OTHER),
        1,
    ),
    "associated alpha": (
        lambda **o: tiff(with_bands(OTHER, base=ASSOCIATED), RGB, extra=[1], **o),
        over_white(PICTURE, OTHER),
        3,
    ),
    "grey with a band without a meaning": (
        lambda **o: tiff(with_bands(NOTHING, base=GREY), BLACK, **o),
        GREY3,
        0,
    ),
    "grey with alpha": (
        lambda **o: tiff(with_bands(OTHER, base=GREY), BLACK, extra=[2], **o),
        over_white(GREY3, OTHER),
        1,
    ),
    "grey with associated alpha": (
        lambda **o: tiff(
            with_bands(OTHER, base=np.rint(GREY * (OTHER / 255.0)).astype(np.uint8)),
            BLACK,
            extra=[1],
            **o,
        ),
        over_white(GREY3, OTHER),
        3,
    ),
    "palette": (
        lambda **o: tiff(
            GREY, PALETTE, tags={320: ("short", (COLOURS * 257).ravel().tolist())}, **o
        ),
        COLOURS.T.astype(np.uint8)[GREY],
        0,
    ),
    "CMYK": (
        lambda **o: tiff(INKS, CMYK, **o),
        np.asarray(Image.fromarray(INKS, "CMYK").convert("RGB")),
        0,
    ),
    "CMYK with a band without a meaning": (
        lambda **o: tiff(with_bands(OTHER, base=INKS), CMYK, **o),
        np.asarray(Image.fromarray(INKS, "CMYK").convert("RGB")),
        0,
    ),
}
WAYS: dict[str, dict[str, Any]] = {
    "little": {},
    "big": {"order": ">"},
    "BigTIFF": {"big": True},
    "packed": {"compression": DEFLATE},
    "packed, big": {"compression": DEFLATE, "order": ">"},
    "strips": {"strip_rows": 7},
}


def difference(data: bytes, expected: NDArray[np.uint8]) -> int:
    got = np.asarray(decode(data, 10**6))
    assert got.shape == expected.shape
    return int(np.abs(got.astype(int) - expected).max())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CASES)
def test_samples_mean_what_the_tags_say(kind: str, way: str) -> None:
    make, expected, tolerance = CASES[kind]
    assert difference(make(**WAYS[way]), expected) <= tolerance


BANDS = [kind for kind in CASES if "RGB" in kind or "band" in kind or "alpha" in kind]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [*BANDS, "CMYK"])
def test_bands_may_lie_apart(kind: str, way: str) -> None:
    make, expected, tolerance = CASES[kind]
    assert difference(make(planar=True, **WAYS[way]), expected) <= tolerance


@pytest.mark.parametrize("photometric", [BLACK, MIN_IS_WHITE])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_spread_to_8(bits: int, photometric: int) -> None:
    values = (GREY >> 8 - bits).astype(np.uint16)
    most = (1 << bits) - 1
    expected = (values * (255 // most)).astype(np.uint8)
    stored = most - values if photometric == MIN_IS_WHITE else values
    data = tiff(values, photometric, bits=[bits], rows=packed(stored, bits))
    assert difference(data, np.repeat(expected[..., None], 3, axis=2)) == 0


def test_white_of_12_bits_is_white() -> None:
    data = tiff(TWELVE, BLACK, bits=[12], rows=packed(TWELVE, 12))
    assert difference(data, GREY3) == 0


RAMP = np.linspace(-3, 5, GREY.size).reshape(GREY.shape)
WIDE: dict[str, tuple[NDArray[Any], int]] = {
    "float": (RAMP.astype(np.float32), 3),
    "signed 16 bits": ((RAMP * 6000).astype(np.int16), 2),
    "signed 32 bits": ((RAMP * 1e8).astype(np.int32), 2),
    "unsigned 32 bits": (((RAMP + 3) * 5e8).astype(np.uint32), 1),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("photometric", [BLACK, MIN_IS_WHITE])
@pytest.mark.parametrize("kind", WIDE)
def test_wide_grey_is_stretched_and_turned_round(kind: str, photometric: int, way: str) -> None:
    values, sample_format = WIDE[kind]
    whole = values.astype(np.float64)
    stretched = np.rint((whole - whole.min()) / np.ptp(whole) * 255).astype(np.uint8)
    expected = 255 - stretched if photometric == MIN_IS_WHITE else stretched
    data = tiff(values, photometric, sample_format=sample_format, **WAYS[way])
    assert difference(data, np.repeat(expected[..., None], 3, axis=2)) <= 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_in_planes_is_turned_as_well(orientation: int) -> None:
    data = tiff(PICTURE, RGB, planar=True, tags={274: ("short", [orientation])})
    assert difference(data, np.rot90(PICTURE, -1) if orientation == 6 else PICTURE) == 0
    with pytest.raises(ImageError) as caught:
        decode(data, PICTURE.shape[0] * PICTURE.shape[1] - 1)
    assert caught.value.reason == "too_many_pixels"


def test_lab_and_ycbcr() -> None:
    white = np.full((*GREY.shape, 3), (255, 0, 0), np.uint8)
    assert difference(tiff(white, LAB), np.full_like(white, 255)) <= 1
    ycbcr = np.asarray(Image.fromarray(PICTURE).convert("YCbCr"))
    data = tiff(ycbcr, YCBCR, tags={530: ("short", [1, 1])})
    assert difference(data, PICTURE) <= 3


@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr"])
def test_a_jpeg_inside(mode: str) -> None:
    image = Image.fromarray(PICTURE)
    data = encoded(image.convert(mode), "TIFF", compression="jpeg", quality=95)
    expected = np.asarray(image.convert(mode).convert("RGB"))
    assert difference(data, expected) < 25


def test_only_the_tag_turns_it_and_xmp_does_not() -> None:
    from tests.support.exif_data import xmp

    text = xmp(6)
    tags: dict[int, Any] = {
        700: ("short", [*np.frombuffer(text + bytes(len(text) % 2), np.uint16).tolist()])
    }
    data = tiff(PICTURE, RGB, tags=tags).replace(
        (700).to_bytes(2, "little") + b"\3\0", (700).to_bytes(2, "little") + b"\1\0"
    )
    assert decode(data, 10**6).size == SIZE
    turned = tiff(PICTURE, RGB, tags={274: ("short", [6])})
    assert difference(turned, np.rot90(PICTURE, -1)) == 0


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "float RGB": (
        tiff(PICTURE.astype(np.float32), RGB, sample_format=3),
        "3 32-bit floating-point RGB samples",
    ),
    "32-bit RGB": (tiff(PICTURE.astype(np.uint32), RGB), "3 32-bit RGB samples"),
    "64-bit float": (
        tiff(GREY.astype(np.float64), BLACK, sample_format=3),
        "1 64-bit floating-point grey sample",
    ),
    "half float": (
        tiff(GREY.astype(np.float16), BLACK, sample_format=3),
        "1 16-bit floating-point grey sample",
    ),
    "signed RGB": (
        tiff(PICTURE.astype(np.int16), RGB, sample_format=2),
        "3 16-bit signed RGB samples",
    ),
    "12-bit RGB": (tiff(wide(PICTURE), RGB, bits=[12] * 3), "3 12-bit RGB samples"),
    "eight bands": (tiff(with_bands(*[OTHER] * 5), RGB), "8 8-bit RGB samples"),
    "camera sensor": (tiff(wide(GREY), 32803), "1 16-bit camera sensor sample"),
    "YCbCr with few colours": (tiff(PICTURE, YCBCR), "fewer colours than pixels"),
    "big-endian BigTIFF": (tiff(PICTURE, RGB, order=">", big=True), "big-endian BigTIFF"),
    "JPEG 2000": (tiff(PICTURE, RGB, compression=34712), "number 34712"),
    "unknown compression": (tiff(PICTURE, RGB, compression=4711), "number 4711"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_samples_that_cannot_be_read_are_named(kind: str) -> None:
    data, words = UNREADABLE[kind]
    with pytest.raises(ImageError) as caught:
        decode(data, 10**6)
    assert caught.value.reason == "unsupported_format"
    assert words in caught.value.message and caught.value.fix


def test_a_readable_kind_that_is_damaged_is_not_called_unsupported() -> None:
    data = tiff(PICTURE, RGB, compression=DEFLATE)
    place = 8
    with pytest.raises(ImageError) as caught:
        decode(data[:place] + b"junk" * 5 + data[place + 20 :], 10**6)
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize("big", [False, True])
def test_a_file_without_its_directory_is_truncated(big: bool) -> None:
    with pytest.raises(ImageError) as caught:
        decode(tiff(PICTURE, RGB, big=big)[:2000], 10**6)
    assert caught.value.reason == "truncated"
