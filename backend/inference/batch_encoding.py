"""Encodes a batch of prepared images; one that cannot be encoded costs the others nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from backend.encoders.base import Encoder
from backend.errors import ImageError
from backend.images.address import loggable
from backend.inference.image_failures import NOT_FINITE, as_image_error
from backend.inference.preparer import Prepared
from backend.storage.vectors import Embedding, NewEmbedding

log = logging.getLogger(__name__)


def encode_batch(
    encoder: Encoder, images: Sequence[Prepared]
) -> tuple[list[NewEmbedding], dict[str, ImageError]]:
    """Encode images; a batch that fails is halved, until each image that fails is alone.

    Args:
        encoder: the one that prepared them.
        images: with pixels.

    Returns:
        The embeddings, and content key -> failure of the other images.
    """
    if not images:
        return [], {}
    try:
        encoded = encoder.encode_prepared([image.pixels for image in images])
    except Exception as error:
        if len(images) == 1:
            log.exception("image %s cannot be encoded", loggable(images[0].value))
            return [], {images[0].key: as_image_error(error)}
        middle = len(images) // 2
        first, second = (
            encode_batch(encoder, images[:middle]),
            encode_batch(encoder, images[middle:]),
        )
        return first[0] + second[0], first[1] | second[1]
    rows: list[NewEmbedding] = []
    broken: dict[str, ImageError] = {}
    for index, image in enumerate(images):
        regions = None if encoded.regions is None else encoded.regions[index]
        if not np.isfinite(encoded.image[index]).all() or (
            regions is not None and not np.isfinite(regions).all()
        ):
            log.error("image %s has no finite embedding", loggable(image.value))
            broken[image.key] = NOT_FINITE
            continue
        embedding = Embedding.of(encoded.image[index], regions)
        rows.append(NewEmbedding(image.address, image.key, embedding))
    return rows, broken
