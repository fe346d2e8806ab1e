"""From the bytes of a JPEG to the input of a model, beside Pillow with torchvision's transforms.

`python benchmarks/pixels.py [--data DIR] [--no-write]`: CPU milliseconds on one thread for photos
of 12 and of 2 megapixels, made from a seed, and for those of DIR (`images/` and `labels.json`); and
what it changes of the offline encoder's embeddings and of zero-shot mAP there. All ways take turns;
the least of each counts. With the package simplejpeg installed (`uv run --with simplejpeg`), it is
measured, too.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from backend.cli.markdown import table
from backend.encoders.image_tower import Normalise
from backend.encoders.offline import OfflineEncoder
from backend.encoders.preprocessing import EARLIER_DRAFT_SIZE, TensorPreprocessing
from backend.evaluation.machine import machine
from backend.evaluation.measures import MIN_POSITIVES
from backend.images.decode import MOST_PIXELS, decode
from backend.vlpl import metrics
from benchmarks.data import load_folder
from benchmarks.photos import made_jpeg
from benchmarks.report import put

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
START, END = "<!-- pixels: written by benchmarks/pixels.py -->", "<!-- end of pixels -->"
SIZE, BATCH = 224, 32
FEW = 200
"""Photos of the folder that are timed."""

Files = Sequence[bytes]


def ways() -> dict[str, Callable[[Files], object]]:
    """Name -> a function that makes CLIP's input of all files: the reference, ours, and others."""
    config = PreprocessCfg(SIZE)
    reference = image_transform_v2(config, is_train=False)
    preprocessing = TensorPreprocessing(SIZE, "shortest", "bicubic", tiled=False)
    normalise = Normalise(config.mean, config.std, torch.float32)

    def plain(data: bytes, draft_size: int | None = None) -> torch.Tensor:
        return torch.as_tensor(reference(decode(data, MOST_PIXELS, draft_size)))

    def ours(files: Files) -> None:
        for start in range(0, len(files), BATCH):
            batch = [
                preprocessing.prepare(decode(data, MOST_PIXELS, preprocessing.draft_size))
                for data in files[start : start + BATCH]
            ]
            normalise(torch.cat(batch))

    def with_torchvision(data: bytes) -> torch.Tensor:
        from torchvision.io import ImageReadMode, decode_jpeg

        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0)
        return preprocessing.prepare(Image.fromarray(pixels.contiguous().numpy()))

    def each(work: Callable[[bytes], object]) -> Callable[[Files], object]:
        return lambda files: [work(data) for data in files]

    found: dict[str, Callable[[Files], object]] = {
        "Pillow, torchvision's transforms": each(plain),
        "earlier releases": each(lambda data: plain(data, EARLIER_DRAFT_SIZE)),
        "ours": ours,
        "torchvision.io, our resizing": each(with_torchvision),
    }
    try:
        simplejpeg = importlib.import_module("simplejpeg")
    except ImportError:
        return found

    def with_simplejpeg(data: bytes) -> torch.Tensor:
        least = preprocessing.draft_size
        pixels = simplejpeg.decode_jpeg(data, min_height=least, min_width=least, min_factor=1)
        return preprocessing.prepare(Image.fromarray(pixels))

    return {**found, "simplejpeg, our resizing": each(with_simplejpeg)}


def compare(files: Files, rounds: int) -> dict[str, float]:
    """The least CPU milliseconds per photo of each way."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, work in ways().items():
            started = time.thread_time()
            work(files)
            spent = 1000 * (time.thread_time() - started) / len(files)
            best[name] = min(best.get(name, float("inf")), spent)
    return best


def fidelity(folder: Path) -> str:
    """What our pixels change of the offline encoder's embeddings, and of mAP by whole images."""
    ours, plain = (
        load_folder(folder, OfflineEncoder("none", earlier=earlier)) for earlier in (False, True)
    )
    assert ours.image is not None and plain.image is not None
    cosines = torch.nn.functional.cosine_similarity(ours.image, plain.image)
    map_ours, map_plain = (
        100 * metrics.mean_average_precision(data.whole, data.truth, MIN_POSITIVES)
        for data in (ours, plain)
    )
    return (
        f"Offline encoder, {len(cosines)} photos: cosine to the embeddings from Pillow's pixels "
        f"{cosines.mean():.5f} on average, {cosines.min():.5f} at least (goal 0.999); zero-shot "
        f"mAP {map_ours:.2f} instead of {map_plain:.2f} (goal: within 0.1)."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder with images/ and labels.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    torch.set_num_threads(1)
    photos: dict[str, Files] = {
        "12 MP (4032 x 3024)": [made_jpeg(4032, 3024)],
        "2 MP (1632 x 1224)": [made_jpeg(1632, 1224)],
    }
    goals = {"12 MP (4032 x 3024)": " (goal 3)"}
    if options.data:
        paths = sorted((options.data / "images").iterdir())[:FEW]
        photos["of the folder"] = [path.read_bytes() for path in paths]
        goals["of the folder"] = " (goal 1.5)"
    rows = []
    for kind, files in photos.items():
        best = compare(files, options.rounds)
        reference = best["Pillow, torchvision's transforms"]
        rows += [
            {
                "photos": kind,
                "way": name,
                "ms": f"{spent:.2f}",
                "times as fast": f"{reference / spent:.2f}{goals.get(kind, '') * (name == 'ours')}",
            }
            for name, spent in best.items()
        ]
    text = table(rows)
    if options.data:
        torch.set_num_threads(2)
        text += f"\n\n{fidelity(options.data)}"
    text += f"\n\n{machine()}; {time.strftime('%Y-%m-%d')}."
    print(text)
    if options.data and not options.no_write:
        put(PAGE, START, END, text)


if __name__ == "__main__":
    main()
