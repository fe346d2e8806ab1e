"""An image is turned as a browser turns it: by which piece of metadata, and by no other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from backend.images.decode import decode
from backend.images.orientation import exif_orientation
from tests.support.builders import photo
from tests.support.costly_images import encoded
from tests.support.exif_data import exif, xmp
from tests.support.jpeg_files import SIZE, app1, jpeg, kinds, segment, with_segments
from tests.support.other_files import PICTURE, webp_with

TURNED = (SIZE[1], SIZE[0])
JPEGS = {name: data for name, data in kinds() if name.startswith(("EXIF", "XMP"))}
TURNING = {
    *(f"EXIF {number}" for number in (5, 6, 7, 8)),
    "EXIF big-endian",
    "EXIF after other tags",
    "EXIF twice",
    "EXIF whose directory is far",
    "EXIF with another filler",
    "EXIF after JFIF",
    "EXIF after the frame",
    "EXIF before the frame",
}


@pytest.mark.parametrize("name", JPEGS)
def test_the_first_exif_segment_before_the_pixels_turns_a_jpeg(name: str) -> None:
    expected = TURNED if name in TURNING else SIZE
    assert decode(JPEGS[name], 10**6).size == expected


def test_the_names_of_turning_files_exist() -> None:
    assert set(JPEGS) >= TURNING and len(JPEGS) > 2 * len(TURNING)


def test_xmp_turns_nothing_and_exif_turns_beside_it() -> None:
    note = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(6))
    assert decode(with_segments(note), 10**6).size == SIZE
    assert decode(with_segments(note, app1(exif(8))), 10**6).size == TURNED


def test_a_preview_in_the_metadata_is_not_the_image() -> None:
    preview = jpeg(photo(9, 16, 12))
    data = with_segments(app1(exif(1) + preview), segment(0xE0, b"JFXX\0\x10" + preview))
    assert decode(data, 10**6).size == SIZE


@pytest.mark.parametrize("flags", [0, 8])
def test_the_exif_data_of_a_webp_file_turns_nothing(flags: int) -> None:
    data = encoded(PICTURE, "WEBP", lossless=True)
    marked = webp_with(data, (b"EXIF", exif(6)), (b"XMP ", xmp(6)), flags=flags | 4)
    assert decode(marked, 10**6).tobytes() == decode(data, 10**6).tobytes()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_an_avif_is_turned_by_irot_and_not_by_its_metadata() -> None:
    for orientation in range(1, 9):
        # Pillow writes it as irot and imir.
        data = encoded(PICTURE, "AVIF", quality=95, exif=b"Exif\0\0" + exif(orientation))
        assert decode(data, 10**6).size == (TURNED if orientation > 4 else SIZE)
    hidden = exif(6).replace(b"\x12\1", b"\x13\1")
    for turn, expected in ((1, SIZE), (8, TURNED)):
        pieces = Image.Exif()
        pieces.load(b"Exif\0\0" + hidden)
        pieces[0x0112] = turn
        data = encoded(PICTURE, "AVIF", quality=95, exif=pieces, xmp=xmp(6))
        # The tag that Pillow did not know as the orientation becomes it.
        assert data.count(b"\x13\1\3\0") + data.count(b"\1\x13\0\3") == 1
        shown = data.replace(b"\x13\1\3\0", b"\x12\1\3\0").replace(b"\1\x13\0\3", b"\1\x12\0\3")
        upright = decode(data, 10**6)
        assert upright.size == expected
        assert decode(shown, 10**6).tobytes() == upright.tobytes()


@given(st.binary(max_size=60))
def test_any_exif_data_has_an_orientation(data: bytes) -> None:
    for start in (b"", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0\x03\0"):
        assert 1 <= exif_orientation(start + data) <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_eight_orientations(orientation: int) -> None:
    image = photo(7, 64, 48)
    got = np.asarray(decode(with_segments(app1(exif(orientation)), data=jpeg(image)), 10**6))
    turns = {3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}.get(orientation, 0)
    expected = np.asarray(decode(jpeg(image), 10**6))
    if orientation in {2, 4, 5, 7}:
        expected = expected[:, ::-1]
    assert np.array_equal(got, np.rot90(expected, turns))
