"""Bytes on disk and time of lookups while a store grows to N images.

    python -m benchmarks.store --images 8192 [--images 32768 ...] [--json]

One process appends embeddings as a run does, as fast as it can. Meanwhile another one looks up an
image at a time, as a person who opens tasks does, and the bytes on disk are counted. The vectors
are random: what is measured does not depend on their values. ``--store s3://BUCKET/PATH`` measures
a bucket, whose bytes are not counted while it grows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from backend.inference.embedding_writer import ROWS
from backend.storage.maintenance import dedupe
from backend.storage.store import Store
from backend.storage.vectors import Embedding, NewEmbedding

ENCODER = "random-numbers"
DIM = 512
PAUSE_SECONDS = 0.02
"""Between two lookups."""


def new_rows(start: int, count: int) -> list[NewEmbedding]:
    """The images ``start`` ... ``start + count - 1``; the same at each call."""
    values = np.random.default_rng(start).normal(size=(count, 10, DIM)).astype(np.float32)
    return [
        NewEmbedding(address(start + index), key(start + index), Embedding.of(value[0], value[1:]))
        for index, value in enumerate(values)
    ]


def address(number: int) -> str:
    """An address as Label Studio's uploads have it."""
    return f"http://label-studio.example:8080/data/upload/1/{number:08x}-photo_{number}.jpg"


def key(number: int) -> str:
    """A content key: 64 characters."""
    return f"{number:064x}"


def payload_bytes(images: int) -> int:
    """Bytes of the vectors, and of what finds them: each key twice, each address once."""
    texts = 2 * len(key(0)) + len(address(0))
    return images * (new_rows(0, 1)[0].embedding.nbytes + texts)


def fill(uri: str, images: int, batch: int, done: Any, progress: Any) -> None:
    """Append all images, then clean up as a run does when it has ended."""
    store = Store(uri)
    for start in range(0, images, batch):
        store.vectors.add(ENCODER, DIM, new_rows(start, min(batch, images - start)))
        progress.value = min(images, start + batch)
    dedupe(store, ENCODER, DIM)
    done.set()


def disk_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def measure(uri: str, images: int, batch: int) -> dict[str, float]:
    """Fill a new store with ``images`` images and look images up meanwhile."""
    context = multiprocessing.get_context("spawn")
    done, progress = context.Event(), context.Value("q", 0)
    writer = context.Process(target=fill, args=(uri, images, batch, done, progress))
    began = time.monotonic()
    writer.start()
    reader, picks = Store(uri), np.random.default_rng(0)
    lookups: list[float] = []
    most = 0.0
    while not done.wait(PAUSE_SECONDS) and writer.is_alive():
        there = progress.value
        if not there:
            continue
        wanted = int(picks.integers(there))
        start = time.perf_counter()
        keys = reader.vectors.keys_of([address(wanted)])
        found = reader.vectors.embeddings(ENCODER, DIM, keys.values())
        lookups.append(time.perf_counter() - start)
        if not found:
            raise SystemExit(f"image {wanted} was stored and is not there")
        if "://" not in uri and there >= images // 16:
            # The writer may have added a batch since `there` was read.
            most = max(most, disk_bytes(Path(uri)) / payload_bytes(there))
    writer.join()
    if writer.exitcode:
        raise SystemExit(f"the writer failed with exit code {writer.exitcode}")
    result = {
        "images": images,
        "payload_bytes": payload_bytes(images),
        "seconds": time.monotonic() - began,
        "lookups": len(lookups),
        "lookup_p50_ms": float(np.percentile(lookups, 50)) * 1000,
        "lookup_p99_ms": float(np.percentile(lookups, 99)) * 1000,
        "lookup_max_ms": max(lookups) * 1000,
    }
    if "://" not in uri:
        result["disk_bytes"] = disk_bytes(Path(uri))
        result["disk_share"] = result["disk_bytes"] / result["payload_bytes"]
        result["disk_share_at_most"] = max(most, result["disk_share"])
    return result


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, action="append", help="may be given several times")
    parser.add_argument("--batch", type=int, default=ROWS, help="images per append; as a run's")
    parser.add_argument("--store", help="an empty folder or bucket path; default: a temporary one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for images in options.images or [8192]:
        with tempfile.TemporaryDirectory() as folder:
            uri = f"{options.store.rstrip('/')}/{images}" if options.store else f"{folder}/store"
            result = measure(uri, images, options.batch)
        if options.json:
            print(json.dumps(result), flush=True)
        else:
            print("  ".join(f"{name} {value:,.4g}" for name, value in result.items()), flush=True)


if __name__ == "__main__":
    main()
