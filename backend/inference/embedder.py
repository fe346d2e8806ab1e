"""Embeddings for image addresses: from the store, or by fetching, decoding and encoding."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from backend import telemetry
from backend.encoders.base import Encoder
from backend.errors import StoreError
from backend.images.address import loggable, store_address
from backend.images.direct import Source
from backend.inference.batch_encoding import encode_batch
from backend.inference.embedding_writer import EmbeddingWriter
from backend.inference.image_failures import Failures, as_image_error, count, late
from backend.inference.known_images import KnownImages
from backend.inference.preparer import Known, Prepared, Preparer
from backend.settings import Settings
from backend.storage.embedding_cache import EmbeddingCache
from backend.storage.store import Store
from backend.storage.vectors import Embedding

log = logging.getLogger(__name__)

Embedded = tuple[dict[str, Embedding], Failures]
"""Image address -> embedding, and address -> failure; every address is in one of the two."""
URGENT = 8
"""Images encoded at once where there is a deadline: a batch cannot be cut short."""
BEAT_SECONDS = 1.0
"""While no image is ready, `Step` is called this often."""

Step = Callable[[int, int, int], None]
"""Called after each batch, and while images take long, with the numbers of images that the store
had already, that were encoded and that failed so far; may raise to stop."""


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
        self._encoding = threading.Lock()

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
        fresh, failures = self._encode_missing(missing, deadline)
        count(failures)
        return stored | fresh, failures

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
        fresh, failures = self._encode_missing(
            missing,
            None,
            lambda same, done, failed: step(cached + same, done, failed),
            asked,
        )
        count(failures)
        same = len(missing) - len(fresh) - len(failures)
        changed = tuple(value for value in fresh if addresses[value] in asked)
        answered = sum(
            address in asked and value not in failures for value, address in missing.items()
        )
        return Filled(len(fresh), cached + same, failures, answered, changed)

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
        return store_address(value, self._settings.label_studio_url)

    def _stored(self, addresses: dict[str, str], strict: bool) -> dict[str, Embedding]:
        try:
            embeddings = self._cache.get(addresses.values())
        except StoreError as error:
            self._store_failed(error, strict)
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
        missing: dict[str, str],
        deadline: float | None,
        step: Step | None = None,
        asked: Mapping[str, Known] | None = None,
    ) -> tuple[dict[str, Embedding], Failures]:
        """Fetch and encode images; with a ``step``, store failures are raised, else logged.

        An image that is asked for, and is the one that is known, is in neither of the results.
        """
        known = {} if asked is None else asked
        strict, tell = step is not None, step or (lambda same, done, failed: None)
        writer = EmbeddingWriter(self._encoder, self._store, self._known, is_run=strict)
        embeddings: dict[str, Embedding] = {}
        failures: Failures = {}
        same: list[Prepared] = []
        told = 0
        jobs: dict[Future[Prepared], str] = {}
        queue = deque(missing.items())
        ready: list[Prepared] = []
        # Only so many images wait decoded: memory stays flat however long the list is.
        size = (
            self._settings.batch_size
            if deadline is None
            else min(URGENT, self._settings.batch_size)
        )
        in_flight = self._settings.fetch_workers + size
        try:
            while (queue or jobs) and not _passed(deadline):
                while queue and self._may_fetch(jobs, in_flight, deadline is not None):
                    value, address = queue.popleft()
                    jobs[self._preparer.submit(value, address, known.get(address))] = value
                done, _ = wait(jobs, timeout=_beat(deadline), return_when=FIRST_COMPLETED)
                if not done:
                    if strict:
                        writer.flush_if_due()
                    tell(len(same), len(embeddings), len(failures))
                for image in _collected(done, jobs, failures):
                    (same if image.pixels is None else ready).append(image)
                # With a deadline, no image that is ready waits for those that are not; without one,
                # only as long as others become ready.
                enough = size if deadline is None and done else 1
                while len(ready) >= enough and not _passed(deadline):
                    batch, ready = ready[:size], ready[size:]
                    self._encode(batch, deadline, writer, embeddings, failures)
                    tell(len(same), len(embeddings), len(failures))
                if len(same) - told >= size:
                    self._known.remember(same[told:])
                    told = len(same)
                    tell(len(same), len(embeddings), len(failures))
            if not _passed(deadline):
                self._encode(ready, deadline, writer, embeddings, failures)
        finally:
            for job in jobs:
                job.cancel()
            if strict:
                # Also when the run is stopped.
                writer.flush()
        if strict:
            self._known.remember(same[told:])
        tell(len(same), len(embeddings), len(failures))
        unchanged = {image.value for image in same}
        left = missing.keys() - embeddings.keys() - failures.keys() - unchanged
        failures |= {value: late() for value in left}
        return embeddings, failures

    def _may_fetch(
        self, jobs: dict[Future[Prepared], str], in_flight: int, is_urgent: bool
    ) -> bool:
        """Whether another image may be fetched.

        Costly images keep no others waiting, and where there is no deadline, few of them do.
        """
        costly = self._preparer.costly_of(jobs)
        if len(jobs) - costly >= in_flight:
            return False
        return is_urgent or not jobs or (costly < in_flight and self._preparer.has_room)

    def _encode(
        self,
        batch: list[Prepared],
        deadline: float | None,
        writer: EmbeddingWriter,
        embeddings: dict[str, Embedding],
        failures: Failures,
    ) -> None:
        """Add each image of the batch to the embeddings or the failures; late ones to neither."""
        left = _left(deadline)
        # One at a time: an image that two requests bring at once must not be encoded twice, since
        # another batch may give another last bit.
        if not batch or not self._encoding.acquire(timeout=-1 if left is None else left):
            return
        try:
            embeddings |= self._encode_alone(batch, writer, failures)
        finally:
            self._encoding.release()

    def _encode_alone(
        self, batch: list[Prepared], writer: EmbeddingWriter, failures: Failures
    ) -> dict[str, Embedding]:
        try:
            known = writer.embeddings(image.key for image in batch)
        except StoreError as error:
            self._store_failed(error, writer.is_run)
            known = {}
        fresh = list({image.key: image for image in batch if image.key not in known}.values())
        started = time.monotonic()
        rows, broken = encode_batch(self._encoder, fresh)
        if fresh:
            telemetry.ENCODE_SECONDS.observe(time.monotonic() - started)
            telemetry.IMAGES_ENCODED.inc(len(rows))
        known |= {row.key: row.embedding for row in rows}
        failures |= {image.value: broken[image.key] for image in batch if image.key in broken}
        try:
            writer.add(rows, [image for image in batch if image.key not in broken])
        except StoreError as error:
            # The answer does not depend on it: the image is encoded again next time.
            self._store_failed(error, writer.is_run)
        return {image.value: known[image.key] for image in batch if image.key in known}

    def _store_failed(self, error: StoreError, strict: bool) -> None:
        telemetry.STORE_FAILURES.inc()
        if strict:
            raise error
        log.error("%s", error)


def _collected(
    done: Iterable[Future[Prepared]], jobs: dict[Future[Prepared], str], failures: Failures
) -> Iterator[Prepared]:
    """The images of finished jobs; the others go to the failures."""
    for job in done:
        value = jobs.pop(job)
        try:
            yield job.result()
        except Exception as error:
            failure = failures[value] = as_image_error(error)
            log.warning("image %s: %s (%s)", loggable(value), error, failure.reason)


def _passed(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _beat(deadline: float | None) -> float:
    left = _left(deadline)
    return BEAT_SECONDS if left is None else min(BEAT_SECONDS, left)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
