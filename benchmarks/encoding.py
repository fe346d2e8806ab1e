"""What encoding an image costs on this machine's CPU, by model, regions and precision.

`python benchmarks/encoding.py [--rounds 3] [--no-write]`: images a second with all cores, at random
weights (which cost what trained ones do), beside open_clip's own call in float32; and how close the
embeddings stay to those. Both take turns; the best round of each counts. `--data DIR` (`images/`)
takes photos from there instead of noise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from backend.cli.markdown import table
from backend.encoders.openclip import (
    BFLOAT16_INSTRUCTIONS,
    OpenClipEncoder,
    has_instructions,
)
from backend.encoders.openclip_source import find_source
from backend.errors import EncoderError
from backend.evaluation.machine import machine
from benchmarks.report import put

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
START, END = "<!-- encoding: written by benchmarks/encoding.py -->", "<!-- end of encoding -->"
BATCH = 16
GOAL = 3
CHOICES = {
    "ViT-B-32": ("none", "patches", "tiles"),
    "ViT-B-16": ("none", "patches"),
    "convnext_base": ("none", "cells"),
}
PRECISIONS = ("float32", "bfloat16", "int8")


def images(folder: Path | None) -> list[Image.Image]:
    """So many images as a batch has."""
    if folder is not None:
        paths = sorted((folder / "images").iterdir())[:BATCH]
        return [Image.open(path).convert("RGB") for path in paths]
    chance = np.random.default_rng(0)
    coarse = chance.integers(0, 256, (BATCH, 12, 16, 3), np.uint8)
    return [
        Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC) for pixels in coarse
    ]


def best_seconds(
    works: dict[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The least seconds of each of some works, which take turns."""
    best: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, work in works.items():
            started = clock()
            work()
            # The first round allocates what later ones find.
            if turn:
                best[name] = min(best.get(name, float("inf")), clock() - started)
    return best


def measure(
    model: str, weights: Path, photos: list[Image.Image], rounds: int
) -> list[dict[str, Any]]:
    """A row for each kind of regions and each precision that this machine has."""
    torch.manual_seed(0)
    original = open_clip.create_model(model).eval()
    torch.save(original.state_dict(), weights)
    source = find_source(f"{model}/{weights}", offline=True)
    encoders: dict[tuple[str, str], OpenClipEncoder] = {}
    for regions in CHOICES[model]:
        for precision in PRECISIONS:
            if precision == "bfloat16" and not has_instructions(BFLOAT16_INSTRUCTIONS):
                continue
            try:
                encoder = OpenClipEncoder(
                    source, device="cpu", precision=precision, regions=regions, batch_size=BATCH
                )
                encoder.load()
            except EncoderError:
                continue
            encoders[regions, precision] = encoder
    plain = OpenClipEncoder(source, device="cpu", precision="float32", regions="none", earlier=True)
    pixels = torch.cat([plain.prepare(photo) for photo in photos])

    def open_clips_own() -> Any:
        with torch.inference_mode():
            return original.encode_image(pixels, normalize=True).numpy()

    exact = open_clips_own()
    rows = []
    for (regions, precision), encoder in encoders.items():
        ours = partial(encoder.encode_prepared, [encoder.prepare(photo) for photo in photos])
        seconds = best_seconds({"own": open_clips_own, "ours": ours}, rounds)
        cosines = (ours().image * exact).sum(1)
        goal = f" (goal {GOAL})" if regions == "none" and precision != "float32" else ""
        rows.append(
            {
                "model": model,
                "regions": regions,
                "precision": precision,
                "images/s": f"{len(photos) / seconds['ours']:.1f}",
                "open_clip, float32, whole images only": f"{len(photos) / seconds['own']:.1f}",
                "ratio": f"{seconds['own'] / seconds['ours']:.2f}{goal}",
                "least cosine": f"{cosines.min():.4f}",
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder with images/")
    parser.add_argument("--models", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    photos = images(options.data)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            rows += measure(model, Path(folder) / "weights.pt", photos, options.rounds)
    text = f"{table(rows)}\n\n{machine()}; {time.strftime('%Y-%m-%d')}."
    print(text)
    if not options.no_write:
        put(PAGE, START, END, text)


if __name__ == "__main__":
    main()
