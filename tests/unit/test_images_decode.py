"""Images come out right, compared with expected pixels, or are refused with a reason."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from backend.errors import ImageError, ImageReason
from backend.images.decode import decode
from backend.images.refusals import FORMATS
from tests.support.costly_images import encoded, jpeg_of_many_scans, png
from tests.support.tiff_files import tiff

MAX_PIXELS = 1_000_000
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
UPRIGHT = np.array([[RED, GREEN, BLUE], [(0, 0, 0), WHITE, (90, 60, 30)]], np.uint8)


def pixels(data: bytes, **options: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = decode(data, MAX_PIXELS, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def refusal(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels)
    assert caught.value.fix
    return caught.value


# Upright images of every kind


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in {"JPEG", "AVIF", "GIF"}])
def test_lossless_formats_keep_every_pixel(name: str) -> None:
    options = {"lossless": True} if name == "WEBP" else {}
    assert np.array_equal(pixels(encoded(Image.fromarray(UPRIGHT), name, **options)), UPRIGHT)


@pytest.mark.parametrize("name", ["JPEG", "MPO", "AVIF"])
def test_lossy_formats_come_close(name: str) -> None:
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    image = Image.new("RGB", (32, 16), (200, 100, 50))
    assert np.abs(pixels(encoded(image, name, quality=95)).astype(int) - (200, 100, 50)).max() < 6


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_1_to_8(orientation: int, name: str) -> None:
    stored = {
        1: UPRIGHT,
        2: UPRIGHT[:, ::-1],
        3: UPRIGHT[::-1, ::-1],
        4: UPRIGHT[::-1],
        5: UPRIGHT.transpose(1, 0, 2),
        6: np.rot90(UPRIGHT, 1),
        7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(UPRIGHT, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), name, exif=exif)
    assert np.array_equal(pixels(data), UPRIGHT)


@pytest.mark.parametrize("draft_size", [None, 16])
def test_exif_orientation_of_a_jpeg_also_when_scaled(draft_size: int | None) -> None:
    image = Image.new("RGB", (128, 64), RED)
    image.paste(BLUE, (0, 0, 64, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    got = pixels(encoded(image, "JPEG", quality=95, exif=exif), draft_size=draft_size)
    height, width, _ = got.shape
    assert (width, height) == ((64, 128) if draft_size is None else (16, 32))
    assert got[2, width // 2, 2] > 200
    assert got[-3, width // 2, 0] > 200


@pytest.mark.parametrize("value", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
def test_broken_exif_data_does_not_spoil_the_image(value: bytes) -> None:
    data = png(2, 1, (b"eXIf", value), (b"IDAT", zlib.compress(b"\0\0\xff")))
    assert pixels(data)[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_cmyk_jpeg_and_tiff() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for data in (encoded(image, "JPEG", quality=100), encoded(image, "TIFF")):
        assert np.abs(pixels(data).astype(int) - RED).max() < 4


def test_cmyk_jpeg_is_inverted_as_adobe_writes_it_also_without_the_marker() -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    start = data.index(b"Adobe") - 4
    length = int.from_bytes(data[start + 2 : start + 4], "big") + 2
    plain = data[:start] + data[start + length :]
    for variant in (data, plain):
        assert np.abs(pixels(variant).astype(int) - RED).max() < 4


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(name: str, order: str) -> None:
    values = np.array([[0, 256, 257 * 100, 65535]], np.uint16)
    mode = "I;16" if order == "<" else "I;16B"
    image = Image.frombytes(mode, (4, 1), values.astype(f"{order}u2").tobytes())
    if name == "PNG" and mode == "I;16B":
        data = png(4, 1, (b"IDAT", zlib.compress(b"\0" + values.astype(">u2").tobytes())), depth=16)
    else:
        data = encoded(image, name)
    assert pixels(data)[0, :, 0].tolist() == [0, 1, 100, 255]


def test_16_bit_colour_png_keeps_the_high_byte() -> None:
    row = np.array([[0xFF00, 0x8000, 0x0000]], ">u2").tobytes()
    data = png(1, 1, (b"IDAT", zlib.compress(b"\0" + row)), depth=16, colour=2)
    assert np.array_equal(pixels(data), [[[255, 128, 0]]])


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_grey_is_stretched(kind: type) -> None:
    values = np.array([[-1000, 0, 1000]], kind)
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


def test_32_bit_grey_without_contrast_and_with_infinities() -> None:
    flat = np.full((2, 2), 7, np.int32)
    odd = np.array([[np.nan, np.inf, -np.inf, 1]], np.float32)
    assert pixels(encoded(Image.fromarray(flat), "TIFF")).max() == 0
    assert pixels(encoded(Image.fromarray(odd), "TIFF"))[0, :, 0].tolist() == [0, 0, 0, 255]


def test_palette_with_alpha_lies_over_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    data = encoded(image, "PNG", transparency=bytes([255, 0, 128]))
    assert pixels(data)[0].tolist() == [list(RED), list(WHITE), [127, 127, 255]]


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_rgba_lies_over_white(name: str) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    options = {"lossless": True} if name == "WEBP" else {}
    assert pixels(encoded(image, name, **options))[0].tolist() == [[255] * 3, [127] * 3]


def test_grey_with_alpha_lies_over_white() -> None:
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (10, 255))
    assert pixels(encoded(image, "PNG"))[0].tolist() == [[255] * 3, [10] * 3]


def test_a_transparent_colour_becomes_white() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    data = encoded(image, "PNG", transparency=BLUE)
    assert pixels(data)[0].tolist() == [list(RED), list(WHITE)]


@pytest.mark.parametrize("name", ["PNG", "TIFF", "BMP", "GIF"])
def test_1_bit(name: str) -> None:
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, name))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_and_many_pages_give_the_first_frame(name: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if name == "WEBP" else {}
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:], **options)
    assert pixels(data).reshape(-1, 3).tolist() == [list(RED)] * 16


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("name", ["PNG", "JPEG"])
@pytest.mark.parametrize("draft_size", [None, 224])
def test_1_x_1_and_1_x_5000(size: tuple[int, int], name: str, draft_size: int | None) -> None:
    got = pixels(encoded(Image.new("RGB", size, RED), name, quality=100), draft_size=draft_size)
    assert got.shape == (size[1], size[0], 3)
    assert np.abs(got.astype(int) - RED).max() < 4


@pytest.mark.parametrize(
    ("draft_size", "expected"),
    [(1, (100, 75)), (75, (100, 75)), (76, (200, 150)), (224, (400, 300)), (301, (800, 600))],
)
def test_draft_keeps_the_shorter_side_long_enough(
    draft_size: int, expected: tuple[int, int]
) -> None:
    jpeg = encoded(Image.new("RGB", (800, 600), RED), "JPEG")
    assert decode(jpeg, MAX_PIXELS, draft_size).size == expected
    assert decode(encoded(Image.new("RGB", (800, 600)), "PNG"), MAX_PIXELS, 1).size == (800, 600)


# Refusals


def test_the_name_counts_for_nothing_and_the_content_for_all() -> None:
    disguised = {
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3": "PDF",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>': "SVG",
        b"<!DOCTYPE html><html><body>Log in</body></html>": "HTML",
        b"PK\x03\x04aaaa": "ZIP",
        b'{"detail": "Not found."}': "text or JSON",
        b"\0\1\2\3\4\5\6\7": "unknown",
    }
    for data, name in disguised.items():
        error = refusal(data)
        assert error.reason == "unsupported_format"
        assert name in error.message


@pytest.mark.parametrize("name", ["ICO", "PPM", "TGA", "JPEG2000", "PDF"])
def test_formats_that_pillow_could_read_are_refused_unless_listed(name: str) -> None:
    error = refusal(encoded(Image.new("RGB", (16, 16), RED), name))
    assert error.reason == "unsupported_format"


def test_a_header_of_50000_x_50000() -> None:
    error = refusal(png(50_000, 50_000, (b"IDAT", zlib.compress(b""))), 100_000_000)
    assert error.reason == "too_many_pixels"


@pytest.mark.parametrize("size", [(12_000, 12_000), (10_001, 10_000), (1 << 20, 1 << 20)])
def test_headers_around_the_limits_of_pillow(size: tuple[int, int]) -> None:
    error = refusal(png(*size, (b"IDAT", zlib.compress(b""))), 100_000_000)
    assert error.reason == "too_many_pixels"


def test_the_pixel_limit_is_inclusive() -> None:
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    assert decode(data, 100).size == (10, 10)
    assert refusal(data, 99).reason == "too_many_pixels"


def test_a_size_below_our_limit_and_above_pillows_warning_is_decoded() -> None:
    data = encoded(Image.new("1", (10_000, 9_000)), "PNG")
    assert decode(data, 100_000_000).size == (10_000, 9_000)


def test_a_webp_canvas_is_refused_before_memory_is_reserved() -> None:
    side = (65_534).to_bytes(3, "little")
    data = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 2) + side + side
    error = refusal(data, 100_000_000)
    assert error.reason == "too_many_pixels"
    assert "65535 x 65535" in error.message


def test_a_higher_limit_does_not_lift_the_limit_of_pillow() -> None:
    data = png(20_000, 9_000, (b"IDAT", zlib.compress(b"")))
    error = refusal(data, 1_000_000_000)
    assert error.reason == "too_many_pixels"
    assert "178956970" in error.message


@pytest.mark.parametrize("kind", ["VP8 ", "VP8L"])
def test_a_plain_webp_is_refused_by_its_own_header(kind: str) -> None:
    data = encoded(Image.new("RGB", (300, 200)), "WEBP", lossless=kind == "VP8L")
    assert data[12:16] == kind.encode()
    error = refusal(data, 59_999)
    assert (error.reason, "300 x 200" in error.message) == ("too_many_pixels", True)


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    needed: list[int] = []
    with pytest.raises(ImageError) as caught:
        decode(jpeg_of_many_scans(101, 16), MAX_PIXELS, None, needed.append)
    assert (caught.value.reason, needed) == ("too_costly", [])
    assert decode(jpeg_of_many_scans(80, 16), MAX_PIXELS).size == (16, 16)


def test_bytes_in_metadata_that_look_like_scans_count_for_nothing() -> None:
    data = encoded(Image.new("RGB", (16, 16), RED), "JPEG", progressive=True)
    comment = b"\xff\xfe" + struct.pack(">H", 402) + b"\xff\xda" * 200
    assert decode(data[:2] + comment + data[2:], MAX_PIXELS).size == (16, 16)


def test_memory_is_asked_for_before_pixels_are_decoded() -> None:
    def refuse(needed: int) -> None:
        raise ImageError(ImageReason.TOO_COSTLY, str(needed))

    # The pixels are missing: whoever decodes them says so.
    data = encoded(Image.new("RGB", (1000, 500)), "PNG")
    data = data[: len(data) // 2]
    assert refusal(data).reason == "truncated"
    with pytest.raises(ImageError) as caught:
        decode(data, MAX_PIXELS, None, refuse)
    assert caught.value.reason == "too_costly" and int(caught.value.message) >= 8 * 500_000


@pytest.mark.parametrize("part", [0.3, 0.6, 0.85])
@pytest.mark.parametrize("name", FORMATS)
def test_truncated_files(name: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), name)
    error = refusal(data[: int(len(data) * part)])
    assert error.reason == "truncated"
    assert name in error.message


def test_an_empty_file_is_truncated() -> None:
    assert refusal(b"").reason == "truncated"


def test_a_damaged_file_is_corrupt() -> None:
    data = png(4, 4, (b"IDAT", b"this is not a zlib stream"))
    assert refusal(data).reason == "corrupt"


# Whatever the bytes are


SEEDS = [
    encoded(Image.fromarray(UPRIGHT).resize((16, 12)), name) for name in FORMATS if name != "AVIF"
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(1, len(data)))] if draw(st.booleans()) else data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | damaged())
@example(b"II*\0")
@example(b"\x89PNG\r\n\x1a\n")
@example(b"BM")
def test_any_bytes_give_an_rgb_image_or_an_image_error(data: bytes) -> None:
    try:
        image = decode(data, MAX_PIXELS)
    except ImageError as error:
        assert error.reason in {
            "unsupported_format",
            "too_many_pixels",
            "too_costly",
            "truncated",
            "corrupt",
        }
    else:
        assert image.mode == "RGB"
        assert 1 <= image.width * image.height <= MAX_PIXELS


def test_many_threads_leave_the_warning_filters_of_the_process_alone() -> None:
    before = list(warnings.filters)
    big = encoded(Image.new("1", (10_000, 9_000)), "PNG")
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda data: decode(data, 10**8).size, [big, *SEEDS * 10, big]))
    assert sizes[0] == (10_000, 9_000)
    assert warnings.filters == before


def test_pillows_warnings_about_a_file_are_muted_once_for_the_process() -> None:
    data = tiff(np.zeros((1, 2), np.uint8), 1, tags={256: ("long", [2, 2])})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode(data, MAX_PIXELS).size == (2, 1)
    assert "too many entries" in str(caught[0].message)
    program = (
        "import sys; from backend.images.decode import decode; "
        "print(decode(sys.stdin.buffer.read(), 10).size)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=data, capture_output=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == (b"(2, 1)", b"")
