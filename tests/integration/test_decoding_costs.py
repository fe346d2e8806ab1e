"""What hostile images cost: CPU seconds and memory of all processes together, counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import features

from tests.support import costly_images as costly
from tests.support.builders import photo
from tests.support.costly_images import encoded
from tests.support.decoding import THREADS, cost

SECONDS = 1.0
MEMORY = 400_000_000
OVERHEAD = 200_000_000
"""Bytes of the decoder processes themselves, which differ by machine, and of the files."""
SIDE = 3400
"""Eight images of this size would take two to five times `MEMORY` without a budget."""

LIMITS = {"LS_CLIP_DECODE_SECONDS": str(SECONDS), "LS_CLIP_DECODE_MEMORY": str(MEMORY)}

ENDLESS: dict[str, Callable[[], bytes]] = {
    "progressive JPEG of 2,000 scans": lambda: costly.jpeg_of_many_scans(2000),
    "progressive JPEG of 90 scans": lambda: costly.jpeg_of_many_scans(85, 8000),
    "JPEG of many segments": lambda: costly.jpeg_of_many_segments(3_000_000),
    "TIFF of plain tiles": lambda: costly.tiff_of_tiles(6400, compression=1),
    "BMP in runs": lambda: costly.bmp_of_runs(4000),
}
LARGE: dict[str, Callable[[], bytes]] = {
    "float TIFF": lambda: costly.tiff_of_floats(SIDE),
    "tiled TIFF": lambda: costly.tiff_of_tiles(SIDE // 16 * 16),
    "RGBA PNG": lambda: costly.png_of_rgba(SIDE),
    "WebP": lambda: costly.flat("WEBP", SIDE, lossless=True, method=0),
    "HEIC": lambda: costly.heic(SIDE),
    "TIFF in planes": lambda: costly.tiff_of_planes(SIDE),
    "JPEG that is cut": lambda: costly.flat("JPEG", SIDE)[:-500],
    "PNG that is cut": lambda: costly.png_of_rgba(SIDE)[:-500],
    "AVIF": lambda: costly.flat("AVIF", SIDE, speed=10),
    "progressive JPEG": lambda: costly.flat("JPEG", SIDE, progressive=True, subsampling=0),
}
HARMLESS: dict[str, Callable[[], bytes]] = {
    "GIF of 200,000 frames": lambda: costly.gif_of_frames(200_000),
    "GIF of many extensions": lambda: costly.gif_of_extensions(1_000_000),
    "JPEG with EXIF that grows": lambda: costly.jpeg_with_exif(3000),
    "PNG with compressed text": lambda: costly.png_of_texts(b"zTXt", 10_000),
    "PNG with many profiles": lambda: costly.png_of_texts(b"iCCP", 10_000),
    "PNG with EXIF that grows": lambda: costly.png_with_exif(10_000, 100_000),
}


@pytest.fixture(scope="module")
def allowed_cpu(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds for the limit, and for imports: twice of each, since cores are shared."""
    small = costly.tiff_of_tiles(160)
    used = cost(tmp_path_factory.mktemp("small"), small, **LIMITS)
    assert used["outcomes"] == [[160, 160]]
    return 2 * (float(used["cpu"]) + SECONDS)


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_image_takes_no_more_cpu_time_than_allowed(
    kind: str, allowed_cpu: float, tmp_path: Path
):
    used = cost(tmp_path, ENDLESS[kind](), **LIMITS)
    assert used["outcomes"] == ["too_costly"]
    assert used["cpu"] < allowed_cpu


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_not_needed_of_an_image_costs_little(kind: str, allowed_cpu: float, tmp_path: Path):
    used = cost(tmp_path, HARMLESS[kind](), **LIMITS)
    assert used["outcomes"] != ["too_costly"]
    assert used["cpu"] < allowed_cpu
    assert used["peak"] < MEMORY + OVERHEAD


@pytest.mark.parametrize("kind", LARGE)
def test_eight_large_images_at_once_take_no_more_memory_than_allowed(kind: str, tmp_path: Path):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = LARGE[kind]()
    used = cost(tmp_path, *[data] * THREADS, **{**LIMITS, "LS_CLIP_DECODE_SECONDS": "100"})
    assert len(used["outcomes"]) == THREADS and "too_costly" not in used["outcomes"]
    assert used["peak"] < MEMORY + OVERHEAD


def test_memory_goes_back_after_a_burst(tmp_path: Path):
    """Of large images and of ordinary ones: glibc would keep most of it in its heaps."""
    small = encoded(photo(3, 2500, 2500), "PNG")
    large = costly.flat("PNG", 7000)
    used = cost(tmp_path, *[small] * 30, *[large] * 4)
    assert used["outcomes"] == [[2500, 2500]] * 30 + [[7000, 7000]] * 4
    assert used["peak"] > 300_000_000
    assert used["left"] < 120_000_000
