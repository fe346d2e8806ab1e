"""What decoding within limits costs an ordinary photo, beside the plain decoder.

`python benchmarks/decoding.py [--data DIR] [--no-write]`: CPU milliseconds for one photo, decoding
and preparing (offline encoder), for `backend.images.decode` alone, for `backend.images.decoder`,
and for a decoder process, which ordinary photos do not need. All rounds take turns; the least of
each counts. DIR holds photos; without it photos of 12 megapixels are made from a seed.
"""

from __future__ import annotations

import argparse
import os
import resource
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import features

from backend.cli.markdown import table
from backend.encoders.offline import OfflineEncoder
from backend.images.decode import decode
from backend.images.decoder import Decoder
from backend.images.decoder_pool import DecoderPool
from backend.images.memory import MemoryBudget
from backend.settings import Settings, load_settings
from benchmarks.photos import made_photo
from benchmarks.report import put

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
START, END = "<!-- decoding: written by benchmarks/decoding.py -->", "<!-- end of decoding -->"
SIZE = (4000, 3000)
GOAL = 1.05
PROCESS_ROUNDS = 3

Files = Sequence[bytes]


def made_photos() -> dict[str, Files]:
    """One photo in each format."""
    photo = made_photo(*SIZE)
    formats: dict[str, tuple[str, dict[str, Any]]] = {
        "JPEG": ("JPEG", {"quality": 90}),
        "progressive JPEG": ("JPEG", {"quality": 90, "progressive": True}),
        "PNG": ("PNG", {"compress_level": 3}),
        "WebP": ("WEBP", {"quality": 85, "method": 2}),
        "TIFF": ("TIFF", {"compression": "tiff_lzw"}),
    }
    if features.check("avif"):
        formats["AVIF"] = ("AVIF", {"speed": 9})
    files: dict[str, Files] = {}
    for kind, (name, options) in formats.items():
        out = BytesIO()
        photo.save(out, name, **options)
        files[kind] = [out.getvalue()]
    return files


def photos_of(folder: Path, most: int = 100) -> dict[str, Files]:
    """The first photos below a folder."""
    endings = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif"}
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in endings][:most]
    return {f"{len(paths)} photos": [path.read_bytes() for path in paths]}


def _seconds() -> float:
    """CPU seconds of this process. Those of a decoder process come in when it has ended."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime + ended.ru_utime + ended.ru_stime


def _spent(files: Files, work: Callable[[bytes], object]) -> float:
    started = _seconds()
    for data in files:
        work(data)
    return (_seconds() - started) / len(files)


def compare(files: Files, settings: Settings, rounds: int) -> dict[str, float]:
    """The least CPU seconds per photo of each way."""
    encoder = OfflineEncoder()
    decoder = Decoder(settings)
    most = settings.max_image_pixels
    best: dict[str, float] = {}

    def elsewhere(repeats: int) -> float:
        """With the time of the process, which its start is part of."""
        pool = DecoderPool(settings.decode_seconds, MemoryBudget(settings.decode_memory))
        started = _seconds()
        for data in [*files] * repeats:
            pool.decoded(data, most, encoder.draft_size, encoder.prepare)
        pool.close()
        return _seconds() - started

    ways: dict[str, Callable[[], float]] = {
        "plain": lambda: _spent(
            files, lambda data: encoder.prepare(decode(data, most, encoder.draft_size))
        ),
        "limited": lambda: _spent(
            files, lambda data: decoder.decoded(data, encoder.prepare, encoder.draft_size)
        ),
        "process": lambda: (elsewhere(4) - elsewhere(1)) / (3 * len(files)),
    }
    for turn in range(rounds):
        for name, way in ways.items():
            # A decoder process does far more than what is to be measured to five percent.
            if name != "process" or turn < PROCESS_ROUNDS:
                best[name] = min(best.get(name, float("inf")), way())
    decoder.close()
    return best


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder with photos")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    settings = load_settings()
    photos = photos_of(options.data) if options.data else made_photos()
    rows = []
    draft_size = OfflineEncoder().draft_size
    for kind, files in photos.items():
        best = compare(files, settings, options.rounds)
        is_ordinary = all(Decoder(settings).is_ordinary(data, draft_size) for data in files)
        rows.append(
            {
                "photo": kind,
                "decoded": "by the thread" if is_ordinary else "in a process",
                "plain, ms": f"{1000 * best['plain']:.1f}",
                "within limits, ms": f"{1000 * best['limited' if is_ordinary else 'process']:.1f}",
                "ratio": f"{best['limited' if is_ordinary else 'process'] / best['plain']:.2f}"
                + (f" (goal {GOAL})" if is_ordinary else ""),
                "process / plain": f"{best['process'] / best['plain']:.2f}",
            }
        )
    load = os.getloadavg()[0]
    text = f"{table(rows)}\n\n{os.cpu_count()} cores, of which all programs wanted {load:.1f}."
    print(text)
    if not options.no_write and not options.data:
        put(PAGE, START, END, text)


if __name__ == "__main__":
    main()
