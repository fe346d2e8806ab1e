"""Unusual BMP, GIF and JPEG files: as a browser shows them, or refused by what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.errors import ImageError
from backend.images.decode import decode
from tests.support.jpeg_files import kinds as jpeg_kinds
from tests.support.other_files import (
    HEIGHT,
    SIZE,
    WIDTH,
    bmp,
    bmp_kinds,
    gif,
    gif_kinds,
    gif_screen,
)

BMPS = dict(bmp_kinds())
GIFS = dict(gif_kinds())
JPEGS = dict(jpeg_kinds())
QUADS = bytes([10, 20, 30, 0, 40, 50, 60, 0, 70, 80, 90, 0])
FIRST, SECOND, THIRD = (30, 20, 10), (60, 50, 40), (90, 80, 70)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def pixels(data: bytes) -> Any:
    return np.asarray(decode(data, 10**6))


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, 10**6)
    return caught.value


def runs(body: bytes, nibbles: bool = False, size: tuple[int, int] = (4, 3)) -> Any:
    """The rows of a BMP in runs, from the bottom."""
    kind = {"compression": 2 if nibbles else 1, "palette": QUADS, "colours": 3, "size": size}
    return pixels(bmp(4 if nibbles else 8, body, **kind))[::-1]  # type: ignore[arg-type]


def test_runs_of_8_and_4_bits() -> None:
    got = runs(b"\3\1\1\2\0\0" + b"\0\4\0\1\2\1\0\0" + b"\4\2\0\1")
    assert got[0].tolist() == [[*SECOND]] * 3 + [[*THIRD]]
    assert got[1].tolist() == [[*FIRST], [*SECOND], [*THIRD], [*SECOND]]
    assert got[2].tolist() == [[*THIRD]] * 4
    got = runs(b"\4\x12\0\0" + b"\0\3\x01\x20\1\x10\0\0" + b"\4\x22\0\1", nibbles=True)
    assert got[0].tolist() == [[*SECOND], [*THIRD]] * 2
    assert got[1].tolist() == [[*FIRST], [*SECOND], [*THIRD], [*SECOND]]


def test_what_runs_leave_out_is_black() -> None:
    got = runs(b"\1\1\0\2\1\1\1\2\0\0" + b"\0\1")
    assert got[0].tolist() == [[*SECOND], [*BLACK], [*BLACK], [*BLACK]]
    assert got[1].tolist() == [[*BLACK], [*BLACK], [*THIRD], [*BLACK]]
    assert got[2].tolist() == [[*BLACK]] * 4


def test_runs_beyond_the_image_draw_nothing_elsewhere() -> None:
    got = runs(b"\xff\1\0\0" + b"\0\2\xff\0\2\2\0\0" + b"\0\1")
    assert got[0].tolist() == [[*SECOND]] * 4
    assert (got[1:] == 0).all()
    assert (runs(b"\0\2\0\xff\3\1\0\1") == 0).all()


def test_runs_that_are_cut_are_truncated() -> None:
    body = b"\4\1\0\0" * 40
    kind: dict[str, Any] = {"compression": 1, "palette": QUADS, "colours": 3, "size": (4, 40)}
    whole = bmp(8, body, **kind)
    assert (pixels(whole) == SECOND).all()
    assert (pixels(whole[:-12])[3:] == SECOND).all()
    assert refusal(whole[:-20]).reason == "truncated"


def test_masks_of_16_and_32_bits_and_those_that_cannot_be_read() -> None:
    plain = pixels(BMPS["BMP"]).astype(int)
    for name in ("BMP 5-6-5", "BMP 5-5-5 by masks", "BMP 16 bits", "BMP 32 bits, no alpha mask"):
        assert np.abs(pixels(BMPS[name]) - plain).max() <= 8
    error = refusal(BMPS["BMP 4-4-4"])
    assert error.reason == "unsupported_format" and "16 bits" in error.message and error.fix


def test_the_screen_around_a_gif_frame_is_white() -> None:
    got = pixels(gif_screen(gif(interlace=0), (120, 80), (10, 5)))
    inside = np.zeros((80, 120), bool)
    inside[5 : 5 + HEIGHT, 10 : 10 + WIDTH] = True
    assert (got[~inside] == WHITE).all()
    assert np.array_equal(got[inside].reshape(HEIGHT, WIDTH, 3), pixels(gif(interlace=0)))


@pytest.mark.parametrize("size", [(60, 40), (0, 0)])
def test_a_gif_frame_beyond_its_screen_makes_it_larger(size: tuple[int, int]) -> None:
    assert pixels(gif_screen(gif(interlace=0), size, (0, 0))).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    "name", [name for name in GIFS if "animation" in name or "transparent first" in name]
)
def test_the_first_frame_of_a_gif_counts(name: str) -> None:
    first = pixels(GIFS[name])
    assert first.shape == (SIZE[1], SIZE[0], 3)
    if "transparent first" in name:
        assert (first == 255).all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("12 bits", "of 12 bits a sample"),
        ("lossless", "lossless"),
        ("height after the scan", "height comes after its pixels"),
    ],
)
def test_a_jpeg_that_nobody_shows_is_called_what_it_is(name: str, words: str) -> None:
    error = refusal(JPEGS[name])
    assert error.reason == "unsupported_format"
    assert words in error.message and error.fix
