"""Stores what was encoded; a run in few large files.

Each append is a file of each table, and a lookup looks into every file. So what a run encodes
waits until there is enough of it, or for some seconds: as long as a crash costs at most.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from backend import telemetry
from backend.encoders.base import Encoder
from backend.errors import StoreError
from backend.inference.known_images import KnownImages
from backend.inference.preparer import Prepared
from backend.storage.store import Store
from backend.storage.vectors import Embedding, NewEmbedding

log = logging.getLogger(__name__)

ROWS = 1024
"""Embeddings that a run writes at once, at most."""
SECONDS = 15.0
"""For which they wait, at most."""


def store_failed(error: StoreError, is_run: bool) -> None:
    """What is done about it: a run stops, and any other answer does without the store.

    Raises:
        StoreError: the same, in a run.
    """
    telemetry.STORE_FAILURES.inc()
    if is_run:
        raise error
    log.error("%s", error)


class EmbeddingWriter:
    """Writes for one call of `backend.inference.embedder`. Not thread-safe.

    Args:
        encoder: whose embeddings they are.
        store: where they are kept.
        known: keeps the validators of their files.
        is_run: whether they may wait.

    Attributes:
        is_run: the same.
    """

    def __init__(self, encoder: Encoder, store: Store, known: KnownImages, is_run: bool) -> None:
        self._encoder = encoder
        self._store = store
        self._known = known
        self.is_run = is_run
        self._rows: list[NewEmbedding] = []
        self._images: list[Prepared] = []
        self._since = time.monotonic()

    def embeddings(self, keys: Iterable[str]) -> dict[str, Embedding]:
        """Content key -> embedding, of those that are stored or wait.

        Raises:
            StoreError: the store cannot be read.
        """
        wanted = set(keys)
        waiting = {row.key: row.embedding for row in self._rows if row.key in wanted}
        encoder, vectors = self._encoder, self._store.vectors
        return vectors.embeddings(encoder.id, encoder.dim, wanted - waiting.keys()) | waiting

    def add(self, rows: Sequence[NewEmbedding], images: Sequence[Prepared]) -> None:
        """Store embeddings, and the addresses and validators of images that have them; or soon.

        Raises:
            StoreError: the store cannot be written; `flush` tries again.
        """
        if not self._images:
            self._since = time.monotonic()
        self._rows += rows
        # Not the pixels, which take a hundred times as much memory.
        self._images += [replace(image, pixels=None) for image in images]
        self.flush_if_due()

    @property
    def has_waiting(self) -> bool:
        """Whether anything waits to be stored."""
        return bool(self._images)

    def flush_if_due(self) -> None:
        """Store what waits if it is enough, or has waited for long enough.

        Raises:
            StoreError: the store cannot be written.
        """
        is_late = time.monotonic() - self._since >= SECONDS
        if self._images and (not self.is_run or len(self._images) >= ROWS or is_late):
            self.flush()

    def flush(self) -> None:
        """Store what waits.

        Raises:
            StoreError: the store cannot be written.
        """
        encoder, vectors = self._encoder, self._store.vectors
        vectors.add(encoder.id, encoder.dim, self._rows)
        new = {row.address for row in self._rows}
        again = [(image.address, image.key) for image in self._images if image.address not in new]
        if again:
            vectors.add_addresses(again)
        self._known.remember(self._images)
        self._rows, self._images = [], []
