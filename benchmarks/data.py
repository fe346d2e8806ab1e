"""Data of the benchmarks: a folder of photos with labels, and stored CLIP scores.

A folder holds ``images/`` and ``labels.json``: ``{"classes": [...], "images": {file: [label,
...]}}``, and ``"test": [file, ...]`` if the data set has an official split (VOC, COCO, NUS-WIDE and
CUB have). Without it, the seed chooses half of the photos as the test set.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backend.encoders.base import Encoder
from backend.encoders.label_texts import label_embeddings, label_texts
from backend.evaluation.dataset import Dataset
from backend.storage import region_codes
from backend.vlpl import zero_shot

CHUNK = 64


def cache_folder() -> Path:
    """The folder, outside the project, that keeps embeddings between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "label-studio-clip" / "benchmark"


def load_folder(
    folder: Path, encoder: Encoder, limit: int | None = None, exact_regions: bool = False
) -> Dataset:
    """Read and embed a folder of photos; embeddings are cached by encoder and file list.

    Args:
        folder: in the format that the module describes.
        encoder: loaded if an embedding is not cached.
        limit: read only so many photos, spread evenly over the sorted names.
        exact_regions: score regions as the encoder gives them, not as the store keeps them.
    """
    content = json.loads((folder / "labels.json").read_text())
    classes = tuple(content["classes"])
    files = sorted(content["images"])
    if limit is not None and limit < len(files):
        files = [files[index * len(files) // limit] for index in range(limit)]
    place = {label: index for index, label in enumerate(classes)}
    truth = torch.zeros(len(files), len(classes), dtype=torch.int64)
    for row, file in enumerate(files):
        for label in content["images"][file]:
            truth[row, place[label]] = 1
    image, cells = _embeddings(folder / "images", files, encoder)
    if cells is not None and not exact_regions:
        cells = torch.from_numpy(region_codes.decode(region_codes.encode(cells.numpy())))
    texts = [label_texts(encoder, label) for label in classes]
    labels = zero_shot.label_vectors(torch.from_numpy(label_embeddings(encoder, texts)))
    whole, best = zero_shot.raw_scores(image, cells, labels)
    official = content.get("test")
    test = None
    if official is not None and limit is None:
        row_of = {file: row for row, file in enumerate(files)}
        test = torch.tensor([row_of[file] for file in official])
    return Dataset(
        folder.name,
        classes,
        truth,
        image.float(),
        whole,
        whole if best is None else best,
        test,
        encoder.id,
        labels,
        None if cells is None else cells.float(),
    )


def _embeddings(folder: Path, files: list[str], encoder: Encoder) -> tuple[Tensor, Tensor | None]:
    stamp = hashlib.sha256(encoder.id.encode())
    for file in files:
        stamp.update(f"{file}:{(folder / file).stat().st_size}".encode())
    path = cache_folder() / f"{stamp.hexdigest()[:32]}.npz"
    if path.exists():
        stored = np.load(path)
        cells = torch.from_numpy(stored["cells"]) if "cells" in stored else None
        return torch.from_numpy(stored["image"]), cells
    wholes, parts = [], []
    for start in range(0, len(files), CHUNK):
        photos = []
        for file in files[start : start + CHUNK]:
            with Image.open(folder / file) as photo:
                photos.append(photo.convert("RGB"))
        encoded = encoder.encode_images(photos)
        wholes.append(encoded.image.astype(np.float16))
        if encoded.regions is not None:
            parts.append(encoded.regions.astype(np.float16))
        print(f"\rembedding {min(start + CHUNK, len(files))}/{len(files)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    arrays = {"image": np.concatenate(wholes)}
    if parts:
        arrays["cells"] = np.concatenate(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(path)
    cells = torch.from_numpy(arrays["cells"]) if parts else None
    return torch.from_numpy(arrays["image"]), cells


def load_scores(path: Path) -> Dataset:
    """Read stored cosines: ``cosine``, ``tile_max_cosine``, ``labels`` (N, C); ``classes`` (C)."""
    stored = np.load(path)
    return Dataset(
        path.parent.name,
        tuple(str(name) for name in stored["classes"]),
        torch.from_numpy(stored["labels"].astype(np.int64)),
        None,
        torch.from_numpy(stored["cosine"]),
        torch.from_numpy(stored["tile_max_cosine"]),
        None,
        "stored CLIP RN50x64 cosines",
    )
