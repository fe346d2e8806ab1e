"""Photos made from a seed, for benchmarks that need no data."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image


def made_photo(width: int, height: int) -> Image.Image:
    """A photo with some noise, the same at each call."""
    chance = np.random.default_rng(0)
    coarse = chance.integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = chance.integers(-6, 7, (height, width, 1), np.int16)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def made_jpeg(width: int, height: int) -> bytes:
    """A photo with some noise."""
    out = BytesIO()
    made_photo(width, height).save(out, "JPEG", quality=90)
    return out.getvalue()
