"""The size that a header tells is that of the image that decoding gives."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.errors import ImageError
from backend.images.decode import decode, upright_size
from backend.images.decoder import Decoder
from tests.support.builders import make_settings, photo

LIMIT = 10_000
_TURNED = Image.Exif()
_TURNED[0x0112] = 6


def saved(kind: str, **options: Any) -> bytes:
    out = BytesIO()
    photo(1).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG"),
        saved("JPEG", exif=_TURNED),
        saved("PNG"),
        saved("PNG", exif=_TURNED),
        saved("WEBP"),
        # Browsers do not turn these.
        saved("WEBP", exif=_TURNED),
        saved("GIF"),
        saved("BMP"),
        saved("TIFF"),
        saved("TIFF", exif=_TURNED),
        saved("AVIF", exif=_TURNED),
    ],
    ids=lambda data: repr(data[:8]),
)
def test_the_size_is_that_of_the_upright_image(data: bytes, tmp_path: Path):
    decoder = Decoder(make_settings(tmp_path))
    try:
        size = decoder.size(data)
    finally:
        decoder.close()
    assert size == decode(data, LIMIT).size


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"<html>", "unsupported_format"),
        (saved("PNG")[:20], "truncated"),
        (saved("JPEG"), "too_many_pixels"),
        (saved("WEBP"), "too_many_pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_without_a_usable_size_is_told_as_when_it_is_decoded(data: bytes, reason: str):
    for look in (upright_size, decode):
        with pytest.raises(ImageError) as caught:
            look(data, 100)
        assert caught.value.reason == reason
