"""Conversions to RGB are done in bands, and give what a conversion of the whole image would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.images import conversions as module
from backend.images.conversions import bands
from backend.images.decode import decode
from tests.support.costly_images import encoded

SIZE = (37, 29)
CHANCE = np.random.default_rng(5)


@pytest.fixture(autouse=True, params=[64, 1 << 20], ids=["many bands", "one band"])
def _bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BAND_PIXELS", request.param)


def noise(*shape: int, kind: Any = np.uint8, high: int = 256) -> Any:
    return CHANCE.integers(0, high, (SIZE[1], SIZE[0], *shape)).astype(kind)


def whole(image: Image.Image) -> Image.Image:
    """The RGB image, without bands."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(
            np.rint(np.asarray(image) / 257).astype(np.uint8),
        ).convert("RGB")
    if image.mode in {"I", "F"}:
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) * (255.0 / ((high - low) or 1.0))
        return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    rgb = Image.new("RGB", transparent.size, "white")
    rgb.paste(transparent, mask=transparent)
    return rgb


def floats() -> Image.Image:
    values = CHANCE.normal(0, 1e4, (SIZE[1], SIZE[0])).astype(np.float32)
    values[3, :3] = (np.nan, np.inf, -np.inf)
    return Image.fromarray(values)


def palette() -> Image.Image:
    image = Image.fromarray(noise(), "L").convert("P")
    image.putpalette(CHANCE.integers(0, 256, 768).astype(np.uint8).tobytes())
    return image


FILES = {
    "float": lambda: encoded(floats(), "TIFF"),
    "32 bits": lambda: encoded(
        Image.fromarray(noise(kind=np.int32, high=1 << 30) - (1 << 29)), "TIFF"
    ),
    "16 bits": lambda: encoded(Image.fromarray(noise(kind=np.uint16, high=65536)), "PNG"),
    "16 bits, big": lambda: encoded(
        Image.frombytes("I;16B", SIZE, noise(kind=np.uint16, high=65536).tobytes()), "TIFF"
    ),
    "RGBA": lambda: encoded(Image.fromarray(noise(4)), "PNG"),
    "RGBA WebP": lambda: encoded(Image.fromarray(noise(4)), "WEBP", lossless=True, exact=True),
    "LA": lambda: encoded(Image.fromarray(noise(2), "LA"), "PNG"),
    "palette": lambda: encoded(palette(), "PNG"),
    "palette with alpha": lambda: encoded(
        palette(), "PNG", transparency=CHANCE.integers(0, 256, 256).astype(np.uint8).tobytes()
    ),
    "RGB with a transparent colour": lambda: encoded(
        Image.fromarray(noise(3, high=2)), "PNG", transparency=(1, 0, 1)
    ),
    "grey": lambda: encoded(Image.fromarray(noise()), "PNG"),
    "CMYK": lambda: encoded(Image.fromarray(noise(4), "CMYK"), "JPEG"),
    "1 bit": lambda: encoded(Image.fromarray(noise(high=2) * 255).convert("1"), "TIFF"),
    "GIF": lambda: encoded(palette(), "GIF", transparency=7),
    "RGB": lambda: encoded(Image.fromarray(noise(3)), "PNG"),
    "JPEG": lambda: encoded(Image.fromarray(noise(3)), "JPEG"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore:.*mode.*parameter:DeprecationWarning")
def test_bands_change_no_byte(kind: str) -> None:
    from io import BytesIO

    data = FILES[kind]()
    with Image.open(BytesIO(data)) as image:
        image.load()
        expected = whole(image)
    got = decode(data, 10_000)
    assert (got.mode, got.size) == ("RGB", SIZE)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (64, 2), (63, 7)])
def test_bands_cover_each_row_once(size: tuple[int, int]) -> None:
    boxes = [*bands(size)]
    assert [box[1] for box in boxes] == [0, *(box[3] for box in boxes[:-1])]
    assert boxes[-1][3] == size[1]
    assert {(left, right) for left, _, right, _ in boxes} == {(0, size[0])}
