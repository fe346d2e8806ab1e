"""The interface of every encoder, and the image and vector helpers that encoders share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, as Pillow counts them."""

CPU_BATCH = 32
"""Images that are encoded at once on a CPU; more are no faster."""
REGIONS = 9
"""Regions embedded besides the whole image: a 3 x 3 grid."""


@dataclass(frozen=True)
class ImageEmbeddings:
    """Embeddings of N images, each row L2-normalised.

    Attributes:
        image: the whole image, float32 (N, dim).
        regions: the 3 x 3 regions in reading order, float32 (N, 9, dim), or None.
    """

    image: Floats
    regions: Floats | None


class Encoder(Protocol):
    """A frozen vision-language model.

    Attributes:
        id: names everything that decides an embedding (architecture, weights fingerprint,
            preprocessing, regions, compute dtype). Known without loading the model.
        short: a readable name for model versions, e.g. ``vit-b-16``.
        dim: length of an embedding.
        regions: ``none``, ``cells`` (ninths of the image's own feature map), ``patches`` (ninths
            of a vision transformer's own patches) or ``tiles`` (nine crops, each embedded as an
            image).
        device: what it computes on, e.g. ``cpu`` or ``cuda``.
        precision: what it computes in, e.g. ``float32``; texts may be in another.
        batch_size: how many images it should be given at once.
        concurrency: how many batches it should be given at the same time, each by a thread of its
            own, so that its device never waits for the next one.
        draft_size: the fewest pixels along its shorter side that a JPEG may be decoded to.
        templates: prompt templates with one ``{}`` each; a label's embedding is their mean.
        multilingual: whether the text tower was trained on more than English.
        advice: one sentence on what would make it much faster here, and at what price; or empty.
        logit_scale: factor on the cosine in the model's own probabilities.
        logit_bias: SigLIP's bias, or None for a softmax model.
    """

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def short(self) -> str: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def regions(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def concurrency(self) -> int: ...  # noqa: D102
    @property
    def draft_size(self) -> int: ...  # noqa: D102
    @property
    def templates(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def multilingual(self) -> bool: ...  # noqa: D102
    @property
    def advice(self) -> str: ...  # noqa: D102
    @property
    def logit_scale(self) -> float: ...  # noqa: D102
    @property
    def logit_bias(self) -> float | None: ...  # noqa: D102

    def load(self) -> None:
        """Load the weights now rather than at the first call.

        Raises:
            EncoderError: the weights are missing or do not fit the model.
        """

    def prepare(self, image: Image.Image) -> Any:
        """Preprocess an RGB image of any size into the model's input.

        Separate from `encode_prepared`, so that it can run in many threads while the device works.
        """

    def encode_prepared(self, prepared: Sequence[Any]) -> ImageEmbeddings:
        """Embed N images from `prepare`. An empty sequence gives arrays of length 0."""

    def encode_images(self, images: Sequence[Image.Image]) -> ImageEmbeddings:
        """Embed N RGB images: `prepare` and `encode_prepared` in one call."""

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Embed C texts as they are, without a template: float32 (C, dim), rows L2-normalised."""


def stored_regions(regions: str) -> str:
    """The part of an encoder's id that tells its regions, and that the store keeps them as int8."""
    return regions if regions == "none" else f"{regions}-int8"


def joined_id(*parts: str) -> str:
    """An encoder's id from what decides its embeddings; parts that are empty are left out."""
    return "-".join(part for part in parts if part)


def in_batches(encoder: Encoder, images: Sequence[Image.Image]) -> ImageEmbeddings:
    """Prepare and encode images in batches of the encoder: the pixels of all would not fit."""
    size = encoder.batch_size
    starts = range(0, max(1, len(images)), size)
    parts = [
        encoder.encode_prepared([encoder.prepare(image) for image in images[start:][:size]])
        for start in starts
    ]
    regions = [part.regions for part in parts if part.regions is not None]
    return ImageEmbeddings(
        np.concatenate([part.image for part in parts]),
        np.concatenate(regions) if regions else None,
    )


def normalise(rows: Floats) -> Floats:
    """L2-normalise the last axis; an all-zero row stays zero."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    result: Floats = (rows / np.maximum(norms, 1e-12)).astype(np.float32)
    return result


def tile_boxes(width: int, height: int) -> list[Box]:
    """Nine overlapping boxes of half the width and half the height each, in reading order."""
    tile_width, tile_height = max(1, width // 2), max(1, height // 2)
    lefts = [round((width - tile_width) * step / 2) for step in range(3)]
    tops = [round((height - tile_height) * step / 2) for step in range(3)]
    return [(left, top, left + tile_width, top + tile_height) for top in tops for left in lefts]
