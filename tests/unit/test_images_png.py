"""PNG: only the chunks that decide the pixels count; the others cost and break nothing."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest

from backend.errors import ImageError
from backend.images import png
from backend.images.decode import decode
from backend.images.encoded import JoinedFile
from tests.support.exif_data import exif
from tests.support.png_files import (
    COLOURS,
    GREY,
    HEIGHT,
    METADATA,
    PALETTE,
    RGB,
    SIGNATURE,
    WIDTH,
    animation,
    chunk,
    header,
    samples,
    texts,
)
from tests.support.png_files import pixels as rows
from tests.support.png_files import png as made

PLAIN = decode(made(), 10**6)
SAMPLES = np.asarray(PLAIN)


def pixels(data: bytes) -> Any:
    return np.asarray(decode(data, 10**6))


@pytest.mark.parametrize("name", METADATA)
def test_metadata_changes_no_pixel(name: str) -> None:
    assert np.array_equal(pixels(made(8, RGB, METADATA[name]())), SAMPLES)
    assert np.array_equal(pixels(made(after=METADATA[name]())), SAMPLES)


def test_metadata_is_not_even_given_to_the_decoder() -> None:
    plain = b"".join(png.encoded_of(made()).parts)
    assert plain == made()
    for make in METADATA.values():
        encoded = png.encoded_of(made(8, RGB, make(), after=make()))
        assert b"".join(encoded.parts) == plain


def test_the_pixels_of_a_large_file_are_not_copied() -> None:
    data = made(8, RGB, texts(1, 1000))
    views = [part for part in png.encoded_of(data).parts if isinstance(part, memoryview)]
    assert [len(view) for view in views] == [len(made()) - 33 - 12]
    assert views[0].obj is data


def test_pieces_are_read_as_a_file() -> None:
    parts: list[Any] = [b"ab", b"", memoryview(b"cdefgh"), b"i"]
    file, whole = JoinedFile(parts), b"abcdefghi"
    assert (file.read(), file.read(), file.seek(0)) == (whole, b"", 0)
    for start in range(10):
        for size in (0, 1, 3, 20):
            file.seek(start)
            assert file.read(size) == whole[start : start + size]
            assert file.tell() == min(start + size, 9)
    assert (file.seek(-1, 2), file.read(5), file.seek(-3, 1), file.read(2)) == (8, b"i", 6, b"gh")


@pytest.mark.parametrize("kind", ["IHDR", "PLTE"])
def test_a_deciding_chunk_with_a_wrong_checksum_is_damage(kind: str) -> None:
    data = bytearray(made(4, PALETTE))
    place = data.index(kind.encode()) + 8
    data[place] ^= 1
    with pytest.raises(ImageError) as caught:
        pixels(bytes(data))
    assert caught.value.reason == "corrupt"


def test_transparency_with_a_wrong_checksum_is_no_transparency() -> None:
    assert np.array_equal(
        pixels(made(4, PALETTE, chunk(b"tRNS", bytes(16), 0))), pixels(made(4, PALETTE))
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_any_depth(depth: int) -> None:
    values = samples(depth, GREY)[..., 0]
    data = made(depth, GREY, chunk(b"tRNS", struct.pack(">H", values[30, 40])))
    got, plain = pixels(data), pixels(made(depth, GREY))
    is_clear = values == values[30, 40]
    assert 0 < is_clear.sum() < is_clear.size
    assert (got[is_clear] == 255).all()
    assert np.array_equal(got[~is_clear], plain[~is_clear])


def test_a_transparent_colour_of_16_bits() -> None:
    value = samples(16, RGB)[30, 40]
    got = pixels(made(16, RGB, chunk(b"tRNS", value.astype(">u2").tobytes())))
    assert (got[30, 40] == 255).all()
    assert (got == 255).all(axis=2).mean() < 0.01


def test_indices_beyond_the_palette_mean_its_last_colour() -> None:
    data = SIGNATURE + header(4, PALETTE) + chunk(b"PLTE", COLOURS[:24])
    data += chunk(b"IDAT", zlib.compress(rows(4, PALETTE))) + chunk(b"IEND", b"")
    colours = np.frombuffer(COLOURS[:24], np.uint8).reshape(8, 3)
    expected = colours[np.minimum(samples(4, PALETTE)[..., 0], 7)]
    assert np.array_equal(pixels(data), expected)


@pytest.mark.parametrize(
    ("chunks", "after", "size"),
    [
        (chunk(b"eXIf", exif(6)), b"", (HEIGHT, WIDTH)),
        (chunk(b"eXIf", exif(6)) + chunk(b"eXIf", exif(1)), b"", (HEIGHT, WIDTH)),
        (chunk(b"eXIf", exif(6, ">")), b"", (HEIGHT, WIDTH)),
        (chunk(b"eXIf", exif(6), 0), b"", (WIDTH, HEIGHT)),
        (chunk(b"eXIf", b"Exif\0\0" + exif(6)), b"", (WIDTH, HEIGHT)),
        (b"", chunk(b"eXIf", exif(6)), (WIDTH, HEIGHT)),
    ],
)
def test_the_first_exif_chunk_before_the_pixels_turns_the_image(
    chunks: bytes, after: bytes, size: tuple[int, int]
) -> None:
    assert decode(made(8, RGB, chunks, after=after), 10**6).size == size


def test_the_first_frame_of_an_animation_is_what_is_animated() -> None:
    assert np.array_equal(pixels(animation(default_is_first=True)), SAMPLES)
    alone = pixels(animation(default_is_first=False))
    assert alone.shape == SAMPLES.shape and not np.array_equal(alone, SAMPLES)
    small = pixels(animation(default_is_first=False, second=(30, 20)))
    assert small.shape == SAMPLES.shape
    assert (small[: HEIGHT - 20] == 255).all() and (small[:, : WIDTH - 30] == 255).all()
    assert not (small[HEIGHT - 20 :, WIDTH - 30 :] == 255).all(axis=2).any()


def test_a_small_frame_on_a_large_canvas_counts_as_large() -> None:
    data = animation(default_is_first=False, second=(30, 20))
    with pytest.raises(ImageError) as caught:
        decode(data, 30 * 20)
    assert caught.value.reason == "too_many_pixels"
    needed: list[int] = []
    decode(data, 10**6, None, needed.append)
    assert needed[0] >= 8 * WIDTH * HEIGHT


def test_gamma_is_applied_unless_something_better_is_there() -> None:
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    bright = pixels(made(8, RGB, linear))
    assert bright[SAMPLES == 55].tolist() == [128] * int((SAMPLES == 55).sum())
    assert (bright >= SAMPLES).all()
    for more in (chunk(b"sRGB", b"\0"), chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(200)))):
        assert np.array_equal(pixels(made(8, RGB, linear + more)), SAMPLES)
    usual = chunk(b"gAMA", struct.pack(">I", 45_455))
    assert np.array_equal(pixels(made(8, RGB, usual)), SAMPLES)


def test_pixels_after_a_gap_are_not_pixels() -> None:
    data = zlib.compress(rows(8, RGB))
    gap = chunk(b"IDAT", data[:900]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", data[900:])
    with pytest.raises(ImageError):
        pixels(made(body=gap))
