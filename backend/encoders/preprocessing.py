"""From an RGB image to the pixels that an image tower is given.

`TensorPreprocessing` is for all new embeddings. `PillowPreprocessing` gives the pixels of earlier
releases, bit for bit, for stores that hold embeddings made from them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from backend.encoders.base import Box, tile_boxes

if TYPE_CHECKING:
    import torch

MAX_ASPECT = 4
"""Longest side over shortest side beyond which the ends are cut off before resizing."""
EARLIER_DRAFT_SIZE = 896
"""The `draft_size` of earlier releases, for all models."""
_OVERSAMPLING = 2
"""A JPEG is decoded at a fraction of its size while it keeps so many pixels for each of the input:
nearly none of what resizing would keep is lost (benchmarks/pixels.py)."""


class Preprocessing(Protocol):
    """How an encoder's images are prepared.

    Attributes:
        name: a part of the encoder's id; empty for the pixels of earlier releases.
        draft_size: the fewest pixels along an image's shorter side that are needed.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def draft_size(self) -> int: ...  # noqa: D102

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The image, and its tiles where regions are wanted: (1 or 10, 3, H, W)."""


class PillowPreprocessing:
    """Normalised float32 pixels, resized by Pillow.

    Args:
        transform: an image to a tensor (3, H, W).
        tiled: whether tiles follow the image.
        crops_centre: whether the transform keeps the middle only.
    """

    name = ""
    draft_size = EARLIER_DRAFT_SIZE

    def __init__(
        self, transform: Callable[[Image.Image], torch.Tensor], *, tiled: bool, crops_centre: bool
    ) -> None:
        self._transform = transform
        self._tiled = tiled
        self._crops_centre = crops_centre

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The image, and its tiles where regions are wanted: float32 (1 or 10, 3, H, W)."""
        import torch

        crops = chain([image], (image.crop(box) for box in self._tile_boxes(image)))
        return torch.stack([self._transform(self._bounded(crop)) for crop in crops])

    def _tile_boxes(self, image: Image.Image) -> list[Box]:
        return tile_boxes(*image.size) if self._tiled else []

    def _bounded(self, image: Image.Image) -> Image.Image:
        box = without_ends(*image.size)
        is_strip = self._crops_centre and box != (0, 0, *image.size)
        return image.crop(box) if is_strip else image


class TensorPreprocessing:
    """Unsigned bytes, resized by PyTorch, which are normalised on the device.

    PyTorch's antialiased resizing of bytes is Pillow's algorithm in vector instructions: it differs
    by two levels of 255 at most and takes a half to a third of the time (benchmarks/pixels.py).

    Args:
        size: of the input, in pixels: height and width.
        mode: ``squash`` (to the size, whatever the aspect ratio) or ``shortest`` (the shorter side
            to the size, then the middle).
        interpolation: ``bicubic`` or ``bilinear``.
        tiled: whether tiles follow the image.
    """

    name = "u8"

    def __init__(self, size: int, mode: str, interpolation: str, *, tiled: bool) -> None:
        self._size = size
        self._crops_centre = mode == "shortest"
        self._interpolation = interpolation
        self._tiled = tiled
        # A tile is half as wide and half as high as the image.
        self.draft_size = _OVERSAMPLING * size * (2 if tiled else 1)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The image, and its tiles where regions are wanted: uint8 (1 or 10, 3, size, size)."""
        import torch

        pixels = _pixels(image)
        width, height = image.size
        boxes = [(0, 0, width, height), *(tile_boxes(width, height) if self._tiled else [])]
        return torch.cat([self._resized(pixels, box) for box in boxes])

    def _resized(self, pixels: torch.Tensor, box: Box) -> torch.Tensor:
        from torch.nn.functional import interpolate

        left, top, right, bottom = box
        target = (self._size, self._size)
        if self._crops_centre:
            ends = without_ends(right - left, bottom - top)
            left, top, right, bottom = left + ends[0], top + ends[1], left + ends[2], top + ends[3]
            target = _shortest_to(self._size, bottom - top, right - left)
        crop = pixels[None, :, top:bottom, left:right]
        resized = interpolate(crop, target, mode=self._interpolation, antialias=True)
        # torchvision's rounding, so that the same columns are kept as in CLIP's training.
        row, column = (round((side - self._size) / 2) for side in target)
        return resized[:, :3, row : row + self._size, column : column + self._size]


def _pixels(image: Image.Image) -> torch.Tensor:
    """An RGB image as unsigned bytes, channels innermost: (3 or 4, H, W), the fourth meaningless.

    Pillow keeps four bytes a pixel. Reading them where they lie (the Arrow C data interface) saves
    a third of the time of preparing a photo, and the interpreter lock is free meanwhile.
    """
    import numpy as np
    import pyarrow as pa
    import torch
    from torch.utils.dlpack import from_dlpack

    width, height = image.size
    try:
        pixels = from_dlpack(pa.array(image).flatten()).view(height, width, 4)
    except ValueError:
        # Large images lie in several blocks. A copy: PyTorch wants memory that it may write to.
        pixels = torch.from_numpy(np.array(image))
    return pixels.permute(2, 0, 1)


def _shortest_to(size: int, height: int, width: int) -> tuple[int, int]:
    """Height and width once the shorter side is ``size`` (torchvision's Resize with one number)."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def without_ends(width: int, height: int) -> Box:
    """The middle of a very long image, which holds all that the model's centre crop keeps.

    Resizing a strip to a given shortest edge would allocate gigabytes that are cropped away.
    """
    limit = MAX_ASPECT * min(width, height)
    left, top = max(0, (width - limit) // 2), max(0, (height - limit) // 2)
    return left, top, width - left, height - top
