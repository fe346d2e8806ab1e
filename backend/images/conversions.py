"""From what Pillow decodes to RGB: over white, and from wider values to 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BAND_PIXELS = 1 << 20
"""Conversions that need copies are done on so many pixels at once."""

_KEEPING_FORMATS = {"WEBP", "AVIF"}
"""Pillow's plugins keep what they decoded from for as long as the image lives."""

SIXTEEN_BITS = 65535
"""The value of white in 16 bits."""


def bands(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes as wide as an image that cover it from top to bottom, of about a million pixels."""
    width, height = size
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def to_rgb(
    image: Image.Image,
    *,
    white: int = SIXTEEN_BITS,
    is_negative: bool = False,
    is_unsigned: bool = False,
    gamma: float | None = None,
) -> Image.Image:
    """An RGB image, transparent pixels over white.

    Args:
        image: of any mode; it may be returned itself.
        white: the value of white in an image of 16-bit grey.
        is_negative: whether small values are bright in an image of 16- or 32-bit grey.
        is_unsigned: whether 32-bit integers, which Pillow takes for signed ones, are not.
        gamma: as in `backend.images.encoded.EncodedImage`.
    """
    if image.mode.startswith(("I", "F")):
        return _with_gamma(_grey_to_rgb(image, white, is_negative, is_unsigned), gamma)
    if not image.has_transparency_data:
        is_lean = image.mode == "RGB" and image.format not in _KEEPING_FORMATS
        return _with_gamma(image if is_lean else image.convert("RGB"), gamma)
    rgb = Image.new("RGB", image.size, "white")
    for box in bands(image.size):
        band = image.crop(box)
        # Pillow has no direct way from premultiplied grey.
        transparent = (band.convert("LA") if band.mode == "La" else band).convert("RGBA")
        colours = transparent
        if gamma is not None:
            colours = _with_gamma(transparent.convert("RGB"), gamma)
        rgb.paste(colours, box, mask=transparent)
    return rgb


def _with_gamma(image: Image.Image, gamma: float | None) -> Image.Image:
    return image if gamma is None else image.point([*_gamma_table(gamma)] * 3)


@cache
def _gamma_table(gamma: float) -> bytes:
    """Value -> value on sRGB's curve."""
    import numpy as np

    light = (np.arange(256) / 255) ** gamma
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return bytes(np.rint(255 * curve).astype(np.uint8))


def _grey_to_rgb(
    image: Image.Image, white: int, is_negative: bool, is_unsigned: bool
) -> Image.Image:
    """Scale 16- and 32-bit grey values to 8 bits; Pillow's own conversion clips at 255."""
    import numpy as np

    transparent = image.info.get("transparency") if image.format == "PNG" else None
    if image.mode.startswith("I;16"):
        table = _table_of_16_bits(white, is_negative)

        def scaled(band: Image.Image) -> NDArray[np.uint8]:
            values = np.asarray(band)
            narrow: NDArray[np.uint8] = table[values]
            if transparent is not None:
                narrow[values == transparent] = 255
            return narrow

    else:
        low, high = _value_range(image, is_unsigned)
        if is_negative:
            low, high = high, low
        factor = 255.0 / ((high - low) or 1.0)

        def scaled(band: Image.Image) -> NDArray[np.uint8]:
            return np.rint((_finite(band, is_unsigned) - low) * factor).astype(np.uint8)

    rgb = Image.new("RGB", image.size)
    for box in bands(image.size):
        rgb.paste(Image.fromarray(scaled(image.crop(box))).convert("RGB"), box)
    return rgb


@cache
def _table_of_16_bits(white: int, is_negative: bool) -> NDArray[np.uint8]:
    import numpy as np

    values = np.rint(np.minimum(np.arange(65536), white) * (255 / white))
    table: NDArray[np.uint8] = (255 - values if is_negative else values).astype(np.uint8)
    return table


def _value_range(image: Image.Image, is_unsigned: bool) -> tuple[float, float]:
    """The smallest and the largest value of a 32-bit grey image."""
    ranges = []
    for box in bands(image.size):
        values = _finite(image.crop(box), is_unsigned)
        ranges.append((float(values.min()), float(values.max())))
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _finite(band: Image.Image, is_unsigned: bool) -> NDArray[np.float64]:
    import numpy as np

    values = np.asarray(band)
    values = values.view(np.uint32) if is_unsigned else values
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
