"""How well a GPU is used, from the bytes of JPEGs to embeddings.

`python -m benchmarks.device [--device cuda] [--seconds 2] [--no-write]`: images a second of the
forward pass alone, of decoding alone, of both together as a worker runs them, and of PyTorch's
DataLoader with Pillow and torchvision's transforms in as many processes as there are cores; and the
share of the time in which the device waits. Weights are random, which costs what trained ones cost,
and photos of three sizes are made from a seed. It needs torch, torchvision, open_clip_torch, timm,
Pillow, numpy and pydantic-settings, and neither a store nor a Label Studio.

`--processes 4` runs as many of these programs at once, which share the device and the cores: one
process of Python decodes no more images than its interpreter lock lets through.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from backend.cli.markdown import table
from backend.encoders.openclip import OpenClipEncoder
from backend.evaluation.machine import cores, machine
from benchmarks import device_runs
from benchmarks.photos import made_jpeg
from benchmarks.report import put

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
START, END = "<!-- device: written by benchmarks/device.py -->", "<!-- end of device -->"
GOAL = 0.9
CHOICES = {
    "ViT-B-32": ("none", "patches", "tiles"),
    "ViT-B-16": ("none", "patches"),
    "ViT-L-14": ("none", "patches"),
    "ViT-B-16-SigLIP": ("none", "tiles"),
    "convnext_base": ("none", "cells"),
}
WITHOUT_GOAL = ("ViT-B-32",)
SIZES = {
    "0.3 MP (640 x 480)": (640, 480),
    "2 MP (1632 x 1224)": (1632, 1224),
    "12 MP (4032 x 3024)": (4032, 3024),
}


def rows_of(
    model: str, encoder: OpenClipEncoder, photos: dict[str, bytes], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each size of photos."""
    workers = max(1, options.workers or cores())
    forward = device_runs.forward_only(encoder, options.seconds)
    rows = []
    for size, data in photos.items():
        whole = device_runs.end_to_end(encoder, data, options.seconds, workers)
        decoding = device_runs.decoding_only(encoder, data, options.seconds, workers)
        share = whole.images_per_second / forward
        goal = "" if model in WITHOUT_GOAL else f" (goal {GOAL})"
        row = {
            "model": model,
            "regions": encoder.regions,
            "batch": encoder.batch_size,
            "photos": size,
            "forward only": round(forward),
            "decoding only": round(decoding),
            "end to end": round(whole.images_per_second),
            "share of forward": f"{share:.2f}{goal}",
            "device waits": f"{whole.waiting:.0%}",
        }
        if encoder.regions == "none" and not options.no_loader:
            loader = device_runs.with_data_loader(encoder, data, options.seconds, workers)
            row["DataLoader"] = round(loader)
            row["times as fast"] = f"{whole.images_per_second / loader:.2f}"
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The rows of all chosen models."""
    photos = {
        name: made_jpeg(*size) for name, size in SIZES.items() if name.startswith(options.photos)
    }
    rows: list[dict[str, Any]] = []
    for model in options.models:
        source = device_runs.random_source(model, folder)
        for regions in CHOICES[model]:
            if options.regions and regions not in options.regions:
                continue
            encoder = OpenClipEncoder(
                source,
                device=options.device,
                precision=options.precision,
                regions=regions,
                batch_size=options.batch_size,
            )
            encoder.load()
            rows += rows_of(model, encoder, photos, options)
            del encoder
    return rows


def together(count: int, arguments: list[str]) -> list[dict[str, Any]]:
    """The rows of as many programs as run at once, their rates added up."""
    command = [sys.executable, "-m", "benchmarks.device", *arguments, "--no-write"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    outputs = [process.communicate()[0] for process in running]
    parsed = [
        [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        for output in outputs
    ]
    rows = []
    for same in zip(*parsed, strict=True):
        row = {name: same[0][name] for name in ("model", "regions", "batch", "photos")}
        rates = {
            name: sum(one[name] for one in same)
            for name in ("forward only", "decoding only", "end to end")
        }
        rows.append({**row, "processes": count, **rates})
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, mps or cpu")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or int8")
    parser.add_argument("--models", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    parser.add_argument("--regions", nargs="+", help="only these: none, cells, patches, tiles")
    parser.add_argument("--photos", default="", help="only sizes that begin so: 0.3, 2 or 12")
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="threads; 0: as many as cores")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--processes", type=int, default=1, help="as many of these at once")
    parser.add_argument("--no-loader", action="store_true", help="without PyTorch's DataLoader")
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    try:
        torch.zeros(1, device=options.device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise SystemExit(f"{options.device}: {reason} Another: --device cpu.") from error
    if options.device != "cpu":
        torch.set_num_threads(1)
    if options.processes > 1:
        at = sys.argv.index("--processes")
        rows = together(options.processes, [*sys.argv[1:at], *sys.argv[at + 2 :], "--no-loader"])
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(options, Path(folder))
    if not rows:
        raise SystemExit(
            f"Nothing matches. Sizes of photos: {', '.join(SIZES)}. Models and regions: {CHOICES}"
        )
    text = (
        f"{table(rows)}\n\nImages a second; each was measured for {options.seconds:g} seconds.\n\n"
        f"{machine()}; {time.strftime('%Y-%m-%d')}."
    )
    print(text)
    if not options.no_write:
        put(PAGE, START, END, text)


if __name__ == "__main__":
    main()
