"""Region embeddings in one byte a value.

Regions are nine tenths of what the store keeps. Only their directions count, since scores are
cosines, so a vector is scaled to the range of int8 and its length is not kept. The mAP of
zero-shot suggestions on COCO is the same to 0.02 points (docs/benchmark.md).
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_LARGEST = 127.0
_FORMER_ID = re.compile(r"-(cells|tiles)-([a-z0-9]+)$")


def present_id(encoder_id: str) -> str:
    """The id that an encoder has today, if this is its id of when regions were kept as float16."""
    return _FORMER_ID.sub(r"-\1-int8-\2", encoder_id)


def encode(regions: NDArray[np.floating]) -> NDArray[np.int8]:
    """Vectors (..., D) as integers in [-127, 127], each scaled by its largest component.

    They are rounded to float16 first, as earlier layouts kept them, so that what was stored then
    has the same codes as what is embedded now.
    """
    values = regions.astype(np.float16).astype(np.float32)
    largest = np.abs(values).max(axis=-1, keepdims=True)
    scaled = values / np.where(largest > 0.0, largest, 1.0) * _LARGEST
    codes: NDArray[np.int8] = np.rint(scaled).astype(np.int8)
    return codes


def decode(codes: NDArray[np.int8]) -> NDArray[np.float16]:
    """The L2-normalised vectors (..., D) that the codes stand for; an all-zero one stays zero."""
    values = codes.astype(np.float32)
    # Integers below 2^24: the sum is exact in any order.
    norms = np.sqrt((values * values).sum(axis=-1, keepdims=True))
    vectors: NDArray[np.float16] = (values / np.where(norms > 0.0, norms, 1.0)).astype(np.float16)
    return vectors
