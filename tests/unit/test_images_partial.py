"""Files that lack their end: what a browser shows nearly all of is decoded, the rest is refused."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from backend.errors import ImageError
from backend.images.decode import decode
from tests.support.builders import photo
from tests.support.costly_images import encoded
from tests.support.exif_data import exif
from tests.support.jpeg_files import SCAN, app1, halved, jpeg, noisy, with_segments
from tests.support.other_files import webp_with

PICTURE = noisy()
HEIGHT = PICTURE.height
MAKERS: dict[str, Any] = {
    "JPEG": lambda: jpeg(PICTURE),
    "grey JPEG": lambda: jpeg(PICTURE.convert("L")),
    "CMYK JPEG": lambda: jpeg(PICTURE.convert("CMYK")),
    "JPEG with restarts": lambda: jpeg(PICTURE, restart_marker_rows=1),
    "MPO": lambda: encoded(PICTURE, "MPO", quality=92),
    "PNG": lambda: encoded(PICTURE, "PNG"),
    "grey PNG": lambda: encoded(PICTURE.convert("L"), "PNG"),
    "1-bit PNG": lambda: encoded(PICTURE.convert("1"), "PNG"),
    "palette PNG": lambda: encoded(PICTURE.quantize(200), "PNG"),
    "16-bit PNG": lambda: encoded(
        Image.fromarray(np.asarray(PICTURE.convert("L")).astype(np.uint16) * 257), "PNG"
    ),
    "RGBA PNG": lambda: encoded(PICTURE.convert("RGBA"), "PNG"),
    "GIF": lambda: encoded(PICTURE.quantize(200), "GIF", interlace=0),
    "transparent GIF": lambda: encoded(PICTURE.quantize(200), "GIF", interlace=0, transparency=199),
    "grey GIF": lambda: encoded(PICTURE.convert("L"), "GIF", interlace=0),
    "BMP": lambda: encoded(PICTURE, "BMP"),
    "palette BMP": lambda: encoded(PICTURE.quantize(200), "BMP"),
}


def pixels(data: bytes, **options: Any) -> Any:
    return np.asarray(decode(data, 10**6, **options)).astype(int)


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, 10**6)
    return caught.value


@pytest.mark.parametrize("kind", MAKERS)
def test_rows_that_are_there_are_exact_and_the_others_white(kind: str) -> None:
    data = MAKERS[kind]()
    whole, got = pixels(data), pixels(data[: round(len(data) * 0.95)])
    assert got.shape == whole.shape
    is_white = (got == 255).all(axis=(1, 2))
    # One row of blocks of a JPEG, 16 pixels high, may be decoded on from a few bytes; a few pixels
    # of a GIF may be.
    wrong = (got != whole).any(axis=2) & ~is_white[:, None]
    assert wrong.any(axis=1).sum() <= (16 if "JPEG" in kind or kind == "MPO" else 1)
    assert wrong.any(axis=0).sum() <= (32 if "JPEG" in kind or kind == "MPO" else 7)
    assert 0 < is_white.sum() <= 0.1 * HEIGHT
    rows = np.nonzero(is_white)[0]
    assert rows[-1] - rows[0] == len(rows) - 1
    assert rows[0] == 0 if "BMP" in kind else rows[-1] == HEIGHT - 1


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.85])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_that_lacks_more_than_a_tenth_of_its_rows_is_truncated(
    kind: str, part: float
) -> None:
    data = MAKERS[kind]()
    error = refusal(data[: round(len(data) * part)])
    assert error.reason == "truncated"
    assert "complete copy" in error.fix


def test_the_limit_is_a_tenth_of_the_rows() -> None:
    data = encoded(Image.new("RGB", (40, 100), (1, 2, 3)), "BMP")
    assert (pixels(data[: -10 * 120]) == 255).all(axis=(1, 2)).sum() == 10
    assert (pixels(data[: -9 * 120 - 1]) == 255).all(axis=(1, 2)).sum() == 10
    assert refusal(data[: -10 * 120 - 1]).reason == "truncated"


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (97, 61), (640, 480)])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_only_its_end_is_whole(
    size: tuple[int, int], sampling: str, progressive: bool
) -> None:
    data = jpeg(photo(3, *size), subsampling=sampling, progressive=progressive)
    for missing in (1, 2):
        # What libjpeg makes of the last blocks of a progressive image is not quite the same.
        difference = np.abs(pixels(data[:-missing]) - pixels(data))
        assert difference.mean() < 1 if progressive else difference.max() == 0


@pytest.mark.parametrize("missing", [1, 4, 8, 11, 12, 13, 16])
def test_a_png_that_lacks_only_its_end_is_whole(missing: int) -> None:
    for data in (encoded(PICTURE, "PNG"), encoded(PICTURE.convert("1"), "PNG")):
        assert np.array_equal(pixels(data[:-missing]), pixels(data))


def test_a_gif_and_a_webp_that_lack_only_their_end_are_whole() -> None:
    data = MAKERS["GIF"]()
    assert np.array_equal(pixels(data[:-1]), pixels(data))
    assert np.array_equal(pixels(data[:-2]), pixels(data))
    webp = encoded(PICTURE, "WEBP", lossless=True)
    size = PICTURE.size
    marked = webp_with(webp, (b"EXIF", exif(1, more=30)), (b"XMP ", bytes(99)), size=size)
    for missing in (1, 80, 200, 400):
        assert np.array_equal(pixels(marked[:-missing]), pixels(webp))
    assert refusal(webp[:-30]).reason == "truncated"


@pytest.mark.parametrize("name", ["PNG", "GIF"])
def test_missing_rows_of_interlaced_pixels_are_those_above(name: str) -> None:
    if name == "GIF":
        data = encoded(PICTURE.quantize(200), "GIF", interlace=1)
    else:
        from tests.support.png_files import RGB, png

        data = png(8, RGB, interlaced=True)
    whole, got = pixels(data), pixels(data[: round(len(data) * 0.95)])
    wrong = np.nonzero((got != whole).any(axis=(1, 2)))[0]
    assert len(wrong) and (wrong % 2 == 1).all()
    assert np.array_equal(got[wrong], got[wrong - 1])


def test_a_cut_image_is_turned_and_scaled_like_a_whole_one() -> None:
    data = with_segments(app1(exif(6)), data=jpeg(PICTURE))
    got = pixels(data[: round(len(data) * 0.95)], draft_size=100)
    assert got.shape == (200, 150, 3)
    # The missing bottom is on the left.
    assert (got[:, :3] == 255).all() and not (got[:, 30:] == 255).all()


def test_a_progressive_jpeg_is_whole_when_its_luminance_is() -> None:
    data = jpeg(PICTURE, progressive=True)
    scans = [place for place in range(len(data)) if data.startswith(SCAN, place)]
    # Luminance is complete after the fifth of the usual ten scans, at a coarser precision.
    assert len(scans) == 10
    whole = pixels(data)
    assert np.abs(pixels(data[: scans[6]]) - whole).mean() < 12
    assert refusal(data[: scans[4]]).reason == "truncated"
    assert refusal(data[: scans[1]]).reason == "truncated"
    # A file with an end is as its maker wanted it.
    assert pixels(halved(data, 2)).shape == whole.shape


def test_damage_near_the_end_costs_the_rows_behind_it() -> None:
    data = bytearray(encoded(PICTURE, "PNG"))
    place = len(data) - round(len(data) * 0.04)
    data[place : place + 30] = bytes(30)
    got, whole = pixels(bytes(data)), pixels(encoded(PICTURE, "PNG"))
    assert np.array_equal(got[: round(HEIGHT * 0.9)], whole[: round(HEIGHT * 0.9)])
    early = bytearray(encoded(PICTURE, "PNG"))
    early[len(early) // 2 : len(early) // 2 + 30] = bytes(30)
    assert refusal(bytes(early)).reason == "corrupt"


def test_threads_do_not_loosen_each_others_checks() -> None:
    files = [MAKERS[kind]() for kind in ("JPEG", "PNG", "GIF", "BMP")]
    jobs = [(data, share) for data in files for share in (0.95, 0.6)] * 6

    def outcome(job: tuple[bytes, float]) -> str:
        data, share = job
        try:
            return str(decode(data[: round(len(data) * share)], 10**6).size)
        except ImageError as error:
            return str(error.reason)

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(outcome, jobs)] == ["(400, 300)", "truncated"] * (len(jobs) // 2)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_cut_image_leaves_nothing_to_the_garbage_collector() -> None:
    data = MAKERS["PNG"]()
    gc.collect()
    gc.disable()
    try:
        decode(data[: round(len(data) * 0.95)], 10**6)
        images = [o for o in gc.get_objects() if issubclass(type(o), ImageFile.ImageFile)]
        assert [image for image in images if image.size == PICTURE.size] == []
    finally:
        gc.enable()
