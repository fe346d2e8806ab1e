"""Embeddings for image addresses: from the store, or by fetching, decoding and encoding."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend import telemetry
from backend.encoders.base import Encoder
from backend.errors import StoreError
from backend.images.address import store_address
from backend.images.direct import Source
from backend.inference.embedding_writer import EmbeddingWriter, store_failed
from backend.inference.encoding_queue import EncodingQueue
from backend.inference.encoding_run import EncodingRun, Limits, Step
from backend.inference.image_failures import Failures, count, late
from backend.inference.known_images import KnownImages
from backend.inference.preparer import Known, Preparer
from backend.settings import Settings
from backend.storage.embedding_cache import EmbeddingCache
from backend.storage.store import Store
from backend.storage.vectors import Embedding

Embedded = tuple[dict[str, Embedding], Failures]
"""Image address -> embedding, and address -> failure; every address is in one of the two."""


@dataclass(frozen=True)
class Filled:
    """The outcome of `Embedder.fill`.

    Attributes:
        embedded: images that were encoded.
        cached: images that the store had already.
        failures: the other images. One whose embedding is stored, and which could not be fetched
            when its host was asked for it, keeps its embedding.
        revalidated: images whose hosts were asked whether they have changed, and answered.
        changed: addresses of those that were another image than the one that was embedded.
    """

    embedded: int
    cached: int
    failures: Failures
    revalidated: int = 0
    changed: tuple[str, ...] = ()


class Embedder:
    """See the module. Thread-safe.

    Args:
        settings: batch size, fetch workers, image limits.
        encoder: images to embeddings.
        store: where embeddings are looked up and kept.
        fetcher: gets the bytes.
    """

    def __init__(self, settings: Settings, encoder: Encoder, store: Store, fetcher: Source) -> None:
        self._settings = settings
        self._encoder = encoder
        self._store = store
        self._preparer = Preparer(settings, encoder, fetcher)
        self._known = KnownImages(settings, store)
        self._cache = EmbeddingCache(store.vectors, encoder.id, encoder.dim)
        self._encoding = EncodingQueue(encoder)

    def embed(self, values: Sequence[str], deadline_seconds: float | None = None) -> Embedded:
        """Embeddings of these images; what the store lacks is fetched, encoded and stored.

        A store that fails costs time, and no answer.

        Args:
            values: image addresses as the tasks' data has them.
            deadline_seconds: images that are not encoded by then fail with ``timeout``; None:
                however long it takes.
        """
        deadline = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        addresses = {value: self.address(value) for value in dict.fromkeys(values)}
        stored = self._stored(addresses, strict=False)
        missing = {value: addresses[value] for value in addresses if value not in stored}
        if not missing:
            return stored, {}
        run = self._encode_missing(missing, deadline)
        return stored | run.embeddings, run.failures

    def stored(self, values: Sequence[str]) -> Embedded:
        """Embeddings of those of these images that the store has; the others fail with ``timeout``.

        Args:
            values: image addresses as the tasks' data has them.

        Raises:
            StoreError: the store cannot be read.
        """
        addresses = {value: self.address(value) for value in dict.fromkeys(values)}
        stored = self._stored(addresses, strict=True)
        failures = {value: late() for value in addresses if value not in stored}
        count(failures)
        return stored, failures

    def stored_images(self, addresses: Iterable[str]) -> dict[str, NDArray[np.float16]]:
        """Address -> embedding (dim,) of the whole image, of those that the store has.

        Args:
            addresses: names of images in the store, see `address`.

        Raises:
            StoreError: the store cannot be read.
        """
        keys = self._store.vectors.keys_of(addresses)
        images = self._store.vectors.images(self._encoder.id, self._encoder.dim, keys.values())
        return {address: images[key] for address, key in keys.items() if key in images}

    def fill(
        self,
        values: Sequence[str],
        step: Step = lambda cached, done, failed: None,
        *,
        revalidate: bool = False,
    ) -> Filled:
        """Make sure that the store has these images' embeddings, however long it takes.

        Memory stays flat: nothing is returned, and only so many images wait decoded.

        Args:
            values: image addresses as the tasks' data has them.
            step: see `Step`.
            revalidate: whether the hosts of stored images are asked if they have changed.

        Raises:
            StoreError: the store cannot be read, or could not be written.
        """
        addresses = {value: self.address(value) for value in dict.fromkeys(values)}
        stored = self._stored_keys(addresses.values())
        asked = self._known.known(stored) if revalidate else {}
        missing = {
            value: address
            for value, address in addresses.items()
            if address not in stored or address in asked
        }
        cached = len(addresses) - len(missing)
        telemetry.CACHE_HITS.inc(cached)
        step(cached, 0, 0)
        run = self._encode_missing(
            missing,
            None,
            lambda same, done, failed: step(cached + same, done, failed),
            asked,
        )
        same = len(missing) - len(run.embeddings) - len(run.failures)
        changed = tuple(value for value in run.embeddings if addresses[value] in asked)
        answered = sum(
            address in asked and value not in run.failures for value, address in missing.items()
        )
        return Filled(len(run.embeddings), cached + same, run.failures, answered, changed)

    def needs_nothing(self, values: Sequence[str], *, revalidate: bool = False) -> bool:
        """Whether `fill` with these arguments would fetch nothing.

        Raises:
            StoreError: the store cannot be read.
        """
        addresses = {self.address(value) for value in values}
        stored = self._stored_keys(addresses)
        return len(stored) == len(addresses) and not (
            revalidate and any(not self._known.is_fixed(address) for address in addresses)
        )

    def _stored_keys(self, addresses: Iterable[str]) -> dict[str, str]:
        """Address -> content key, of the images that this encoder has embedded."""
        keys = self._store.vectors.keys_of(addresses)
        present = self._store.vectors.has(self._encoder.id, self._encoder.dim, keys.values())
        return {address: key for address, key in keys.items() if key in present}

    def close(self) -> None:
        """Give up images that are being decoded; they fail with ``timeout``."""
        self._preparer.close()

    def address(self, value: str) -> str:
        """The image's name in the store, see `store_address`."""
        return store_address(
            value, self._settings.label_studio_url, self._settings.label_studio_public_url
        )

    def _stored(self, addresses: dict[str, str], strict: bool) -> dict[str, Embedding]:
        try:
            embeddings = self._cache.get(addresses.values())
        except StoreError as error:
            store_failed(error, strict)
            return {}
        stored = {
            value: embeddings[address]
            for value, address in addresses.items()
            if address in embeddings
        }
        telemetry.CACHE_HITS.inc(len(stored))
        return stored

    def _encode_missing(
        self,
        missing: Mapping[str, str],
        deadline: float | None,
        step: Step | None = None,
        known: Mapping[str, Known] | None = None,
    ) -> EncodingRun:
        """Fetch and encode images; with a ``step``, store failures are raised, else logged."""
        writer = EmbeddingWriter(self._encoder, self._store, self._known, is_run=step is not None)
        run = EncodingRun(
            self._preparer,
            self._encoding,
            writer,
            self._known,
            limits=Limits.of(self._encoder, self._settings.fetch_workers, deadline),
            step=step or (lambda same, done, failed: None),
        )
        run.run(missing, known or {})
        count(run.failures)
        return run
