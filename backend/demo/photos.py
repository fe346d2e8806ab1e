"""Demo photos with known labels: collages of the photos that scikit-image and scikit-learn ship.

A collage shows one to four of them, each cropped differently, so its labels are known by
construction. Collages are easier than photos: their parts are large, sharp and do not overlap.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from PIL import Image

SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "astronaut": ("skimage.data:astronaut.png", ("person",)),
    "bricks": ("skimage.data:brick.png", ("brick wall",)),
    "camera": ("skimage.data:camera.png", ("person", "camera")),
    "cat": ("skimage.data:chelsea.png", ("cat",)),
    "coffee": ("skimage.data:coffee.png", ("coffee",)),
    "coins": ("skimage.data:coins.png", ("coins",)),
    "flower": ("sklearn.datasets.images:flower.jpg", ("flower",)),
    "grass": ("skimage.data:grass.png", ("grass",)),
    "gravel": ("skimage.data:gravel.png", ("gravel",)),
    "motorcycle": ("skimage.data:motorcycle_left.png", ("motorcycle",)),
    "page": ("skimage.data:page.png", ("printed page",)),
    "rocket": ("skimage.data:rocket.jpg", ("rocket",)),
    "stars": ("skimage.data:hubble_deep_field.jpg", ("galaxy",)),
    "temple": ("sklearn.datasets.images:china.jpg", ("temple",)),
}
"""Name -> (package:file, labels). All are photos under free licences; see the packages."""

LABELS = sorted({label for _, labels in SOURCES.values() for label in labels})
SIZE = 448


@dataclass(frozen=True)
class DemoPhoto:
    """A collage on disk: its file name and its labels."""

    file: str
    labels: tuple[str, ...]


def make_photos(folder: Path, count: int, seed: int = 7) -> list[DemoPhoto]:
    """Write ``count`` collages as JPEG files; the same ones for the same count and seed.

    Args:
        folder: made if missing; files that exist are kept.
        count: how many.
        seed: of the random choices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    sources = {name: _open(place) for name, (place, _) in SOURCES.items()}
    photos = []
    for index in range(count):
        names = chance.sample(sorted(sources), chance.choice((1, 2, 2, 3, 3, 4)))
        collage = _collage([_crop(sources[name], chance) for name in names])
        labels = sorted({label for name in names for label in SOURCES[name][1]})
        file = f"collage-{seed}-{index:04d}.jpg"
        if not (folder / file).exists():
            collage.save(folder / file, quality=88)
        photos.append(DemoPhoto(file, tuple(labels)))
    truth = {
        "classes": LABELS,
        "images": {photo.file: list(photo.labels) for photo in photos},
    }
    (folder.parent / "labels.json").write_text(json.dumps(truth, indent=1))
    return photos


def _open(place: str) -> Image.Image:
    package, _, name = place.partition(":")
    with files(package).joinpath(name).open("rb") as file:
        return Image.open(file).convert("RGB")


def _crop(image: Image.Image, chance: random.Random) -> Image.Image:
    """A part of 70-100 % of each side."""
    width, height = image.size
    share = chance.uniform(0.7, 1.0)
    part_width, part_height = round(width * share), round(height * share)
    left = chance.randint(0, width - part_width)
    top = chance.randint(0, height - part_height)
    return image.crop((left, top, left + part_width, top + part_height))


def _collage(parts: list[Image.Image]) -> Image.Image:
    """One part fills the canvas, two share it side by side, three and four take quarters."""
    canvas = Image.new("RGB", (SIZE, SIZE), "white")
    half = SIZE // 2
    boxes = {
        1: [(0, 0, SIZE, SIZE)],
        2: [(0, 0, half, SIZE), (half, 0, SIZE, SIZE)],
        3: [(0, 0, SIZE, half), (0, half, half, SIZE), (half, half, SIZE, SIZE)],
        4: [
            (0, 0, half, half),
            (half, 0, SIZE, half),
            (0, half, half, SIZE),
            (half, half, SIZE, SIZE),
        ],
    }
    for part, (left, top, right, bottom) in zip(parts, boxes[len(parts)], strict=True):
        canvas.paste(_fill(part, right - left, bottom - top), (left, top))
    return canvas


def _fill(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale and cut to exactly this size, keeping the middle."""
    scale = max(width / image.width, height / image.height)
    scaled = image.resize(
        (max(width, round(image.width * scale)), max(height, round(image.height * scale))),
        Image.Resampling.LANCZOS,
    )
    left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
    return scaled.crop((left, top, left + width, top + height))
