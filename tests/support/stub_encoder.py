"""An encoder that costs nothing: pixels and words through fixed random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from backend.encoders.base import ImageEmbeddings, normalise


class StubEncoder:
    """Follows the encoder protocol at no cost: pixels and words through fixed random numbers."""

    short = "stub"
    dim = 32
    regions = "cells"
    device = "cpu"
    precision = "float32"
    concurrency = 1
    draft_size = 64
    templates = ("a photo of {}.",)
    multilingual = False
    advice = ""
    logit_scale = 10.0
    logit_bias: float | None = None

    def __init__(self, encoder_id: str = "stub-1", batch_size: int = 32) -> None:
        self.id = encoder_id
        self.batch_size = batch_size
        self.images = 0
        self.batches = 0
        self.before: Callable[[], object] = lambda: None
        self._pixels = np.random.default_rng(7).normal(size=(8 * 8 * 3, self.dim))

    def load(self) -> None:
        """Nothing to read."""

    def prepare(self, image: Image.Image) -> Image.Image:
        return image

    def encode_images(self, images: Sequence[Image.Image]) -> ImageEmbeddings:
        return self.encode_prepared(images)

    def encode_prepared(self, images: Sequence[Image.Image]) -> ImageEmbeddings:
        self.before()
        self.images += len(images)
        self.batches += 1
        whole = [self._embed(image) for image in images]
        cells = [[self._embed(image.rotate(10 * step)) for step in range(9)] for image in images]
        return ImageEmbeddings(
            normalise(np.array(whole, np.float32).reshape(-1, self.dim)),
            normalise(np.array(cells, np.float32).reshape(-1, 9, self.dim)),
        )

    def _embed(self, image: Image.Image) -> np.ndarray[Any, Any]:
        small = np.asarray(image.convert("RGB").resize((8, 8)), np.float64).ravel() / 255 - 0.5
        return small @ self._pixels

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        rows = [
            np.random.default_rng(list(hashlib.sha256(text.encode()).digest())).normal(
                size=self.dim
            )
            for text in texts
        ]
        return normalise(np.array(rows, np.float32).reshape(-1, self.dim))
