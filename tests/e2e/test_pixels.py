"""What a browser shows of an image file is what is embedded: the same size, turn and pixels.

Files of every kind are made here and drawn by Chromium on white, all on one page. Where the two
differ, the decision is listed below and in docs/images.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from backend.errors import ImageError, ImageReason
from backend.images.decode import decode
from tests.support import jpeg_files, other_files, png_files
from tests.support.browser_pixels import Pixels, shown

TOLERANCE = 1
"""Levels of 255: alpha and values of 5, 6 and 16 bits are rounded in another way."""

REFUSED = {
    # More than a tenth of the rows is missing.
    **{
        f"{kind}{part}": ImageReason.TRUNCATED
        for kind, parts in {
            "": ("85%", "50%", "10%"),
            "filtered, ": ("85%", "50%", "10%"),
            "interlaced, ": ("85%", "50%", "10%"),
            "GIF ": ("85%", "50%"),
            "GIF interlaced ": ("85%", "50%"),
            "BMP ": ("85%", "50%"),
        }.items()
        for part in parts
    },
    # The detail of its luminance is missing.
    "progressive 10%": ImageReason.TRUNCATED,
    "BMP 4-4-4": ImageReason.UNSUPPORTED_FORMAT,
}
"""Chromium shows something, and the file is refused."""

DIFFERENT = {
    # Chromium takes the alpha of an AVIF for limited range, and a sequence's colours for BT.709.
    "AVIF with alpha": (16, 3.5),
    "AVIF animation": (20, 7.0),
    # Of the scan that is cut, libjpeg leaves the last blocks as they are or decodes them on.
    **{f"progressive {part}%": (90, 0.01) for part in (99, 97, 95, 92, 85, 50)},
    "progressive without an end": (90, 0.01),
}
"""The largest and the mean difference in levels."""

ROWS = {
    # A browser shows the row, or half of it, at which the pixels end.
    "pixels whose sum is wrong",
    *(f"GIF {kind}{part}%" for kind in ("", "interlaced ") for part in (99, 95)),
}
"""One row is not compared."""


def difference(name: str, ours: Pixels, theirs: Pixels) -> str | None:
    """What is wrong; None where nothing is."""
    if ours.shape != theirs.shape:
        return f"{ours.shape[:2]} instead of {theirs.shape[:2]}"
    # Rows that a browser leaves blank, because it waits for more, may be there.
    visible = ~(theirs == 255).all(axis=(1, 2))
    levels = np.abs(ours[visible].astype(int) - theirs[visible])
    if name in ROWS:
        levels = np.delete(levels, levels.mean(axis=(1, 2)).argmax(), axis=0)
    largest, mean = DIFFERENT.get(name, (TOLERANCE, TOLERANCE))
    if levels.max() <= largest and levels.mean() <= mean:
        return None
    return f"{levels.max()} levels at most, {levels.mean():.3f} in the mean"


@pytest.mark.parametrize(
    ("kinds", "least"),
    [(png_files.kinds, 100), (jpeg_files.kinds, 90), (other_files.kinds, 90)],
    ids=["PNG", "JPEG", "others"],
)
def test_the_pixels_of_a_browser_are_embedded(
    chromium: Any, kinds: Callable[[], Iterator[tuple[str, bytes]]], least: int
) -> None:
    files = dict(kinds())
    page = chromium.new_page()
    pictures = dict(zip(files, shown(page, [*files.values()]), strict=True))
    page.close()
    # A browser loads some files and draws nothing of them.
    visible = {name: theirs for name, theirs in pictures.items() if theirs is not None}
    visible = {name: theirs for name, theirs in visible.items() if (theirs < 255).any()}
    assert len(visible) >= least
    problems: dict[str, str] = {}
    for name, theirs in visible.items():
        try:
            ours = np.asarray(decode(files[name], 10**8))
        except ImageError as error:
            if REFUSED.get(name) != error.reason:
                problems[name] = f"refused: {error}"
            continue
        problem = "not refused" if name in REFUSED else difference(name, ours, theirs)
        if problem is not None:
            problems[name] = problem
    assert problems == {}
